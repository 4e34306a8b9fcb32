import { describe, expect, test } from 'vitest'
import { firstCycleDelayMs, nextCycleDelayMs, unseenMs } from './cycle-timer.ts'

const frequencyMs = 30_000
const hourMs = 3_600_000

describe('after a restart', () => {
  test.each([
    ['never captured: at once', null, 0],
    ['captured 10 s ago: the rest of the interval', 1_000_000 - 10_000, 20_000],
    ['captured long ago: at once', 0, 0],
    ['the clock was set back by hours: at once, not in hours', 1_000_000 + 5 * hourMs, 0],
  ])('%s', (_case, lastCapturedAtMs, expected) => {
    expect(firstCycleDelayMs({ lastCapturedAtMs, nowMs: 1_000_000, frequencyMs })).toBe(expected)
  })
})

test.each([
  ['never captured', null, frequencyMs],
  ['captured 10 s ago', 1_000_000 - 10_000, 10_000],
  ['down for a while', 0, 1_000_000],
  ['the clock was set back by hours', 1_000_000 + 5 * hourMs, frequencyMs],
])('the time whose changes the first cycle finds: %s', (_case, lastCapturedAtMs, expected) => {
  expect(unseenMs({ lastCapturedAtMs, nowMs: 1_000_000, frequencyMs })).toBe(expected)
})

test('a cycle that took ten intervals is followed by one, at once', () => {
  const delay = (nowMonotonicMs: number, lastStartMonotonicMs: number) =>
    nextCycleDelayMs({ lastStartMonotonicMs, nowMonotonicMs, frequencyMs })
  expect(delay(300_000, 0)).toBe(0)
  expect(delay(300_001, 300_000)).toBe(29_999)
})
