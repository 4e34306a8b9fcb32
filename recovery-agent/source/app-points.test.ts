import { expect, test } from 'vitest'
import { isAppPointDue } from './app-points.ts'

const hourMs = 3_600_000

test.each([
  ['never wanted', 0, null, false],
  ['wanted, none yet', 1, null, true],
  ['one 59 minutes ago', 1, 10 * hourMs - 59 * 60_000, false],
  ['one an hour ago', 1, 9 * hourMs, true],
  ['every twelve hours, one an hour ago', 12, 9 * hourMs, false],
  ['the clock was set back since', 12, 11 * hourMs, true],
])('%s', (_case, hours, lastMs, expected) => {
  expect(isAppPointDue({ hours, lastMs, nowMs: 10 * hourMs })).toBe(expected)
})
