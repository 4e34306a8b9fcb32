import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  churnBytesPerSecond,
  type FlowHistory,
  type ForecastWarning,
  linkBytesPerSecond,
  noFlow,
  predictBreach,
  stepWarning,
  withCycle,
  withTransfer,
} from './rpo-forecast.ts'

const MB = 1_000_000
const frequencyMs = 30_000
const flow = {
  nowMs: 1_000_000,
  frequencyMs,
  cycleMs: frequencyMs,
  newestAckedAtMs: 1_000_000,
  pending: [],
  churnBytesPerSecond: MB,
  linkBytesPerSecond: 10 * MB,
}

describe('the breach', () => {
  test.each([
    ['is not in sight of a link with room', {}, null],
    ['comes with the first delta of a churn above the link', { churnBytesPerSecond: 12 * MB }, 1_060_000],
    [
      'comes from a backlog the link needs too long for',
      { pending: [{ capturedAtMs: 990_000, bytes: 700 * MB }] },
      1_060_000,
    ],
    ['comes without a link', { linkBytesPerSecond: 0 }, 1_060_000],
    [
      'comes without a link, also when nothing changes',
      { linkBytesPerSecond: 0, churnBytesPerSecond: 0 },
      1_060_000,
    ],
    ['is there already', { newestAckedAtMs: 900_000 }, 960_000],
    ['comes when the target asks for too slow a pace', { cycleMs: 70_000 }, 1_060_000],
  ])('%s', (_case, change, expected) => {
    expect(predictBreach({ ...flow, ...change })).toBe(expected)
  })
})

test('small transfers do not make a link look slow, and one bad transfer does not either', () => {
  let history = withTransfer(noFlow, { bytes: 4_000, ms: 60 })
  expect(linkBytesPerSecond(history)).toBeNull()
  for (const ms of [1000, 900, 60_000, 1100]) history = withTransfer(history, { bytes: 10 * MB, ms })
  expect(linkBytesPerSecond(history)).toBeCloseTo(10 * MB, -6)
})

test('the warning comes once for each crossing and goes after three calm cycles', () => {
  const steps = [null, 70, 80, null, 90, null, null, null, null, 95]
  let warning: ForecastWarning = { kind: 'calm' }
  const events = steps.map((breachAtMs, nowMs) => {
    const stepped = stepWarning(warning, breachAtMs, nowMs)
    warning = stepped.warning
    return stepped.event
  })
  expect(events).toEqual([null, 'raised', null, null, null, null, null, 'over', null, 'raised'])
  expect(stepWarning({ kind: 'calm' }, 5, 10).event).toBeNull()
})

/** One VM on one link, cycle by cycle: when it warned, and when the data really became too old. */
function run(churn: readonly number[], linkRate: number) {
  let history: FlowHistory = noFlow
  let warning: ForecastWarning = { kind: 'calm' }
  let freeMs = 0
  let ackedMs = 0
  let raisedMs: number | null = null
  let breachMs: number | null = null
  let queue: { capturedAtMs: number; bytes: number; arrivesMs: number }[] = []
  for (const [i, rate] of churn.entries()) {
    const nowMs = (i + 1) * frequencyMs
    for (const delta of queue.filter(({ arrivesMs }) => arrivesMs <= nowMs)) {
      if (breachMs === null && delta.arrivesMs > ackedMs + 2 * frequencyMs)
        breachMs = ackedMs + 2 * frequencyMs
      const { bytes } = delta
      history = withTransfer(history, { bytes, ms: (bytes / linkRate) * 1000 })
      ackedMs = delta.capturedAtMs
    }
    queue = queue.filter(({ arrivesMs }) => arrivesMs > nowMs)
    if (breachMs === null && nowMs > ackedMs + 2 * frequencyMs) breachMs = ackedMs + 2 * frequencyMs
    const bytes = (rate * frequencyMs) / 1000
    history = withCycle(history, { storedBytes: bytes, cycleMs: frequencyMs })
    freeMs = Math.max(freeMs, nowMs) + (bytes / linkRate) * 1000
    queue.push({ capturedAtMs: nowMs, bytes, arrivesMs: freeMs })
    const link = linkBytesPerSecond(history)
    const churned = churnBytesPerSecond(history)
    if (link === null || churned === null) continue
    const breachAtMs = predictBreach({
      nowMs,
      frequencyMs,
      cycleMs: frequencyMs,
      newestAckedAtMs: ackedMs,
      pending: queue,
      churnBytesPerSecond: churned,
      linkBytesPerSecond: link,
    })
    const stepped = stepWarning(warning, breachAtMs, nowMs)
    warning = stepped.warning
    if (stepped.event === 'raised') raisedMs ??= nowMs
  }
  return { raisedMs, breachMs }
}

const rates = (min: number, max: number, length: number) =>
  fc.array(fc.double({ min, max, noNaN: true }), { minLength: length, maxLength: length })

test('a churn above the link is foretold at least one cycle before the data is too old', () => {
  fc.assert(
    fc.property(
      rates(0.1, 0.7, 6),
      rates(1.05, 4, 6),
      fc.integer({ min: 1, max: 1000 }),
      (calm, storm, mb) => {
        const { raisedMs, breachMs } = run(
          [...calm, ...storm].map((rate) => rate * mb * MB),
          mb * MB,
        )
        expect(breachMs).not.toBeNull()
        expect(raisedMs).not.toBeNull()
        expect((breachMs ?? 0) - (raisedMs ?? 0)).toBeGreaterThanOrEqual(frequencyMs)
      },
    ),
  )
})

test('a churn below four fifths of the link never raises a warning', () => {
  fc.assert(
    fc.property(rates(0, 0.8, 40), fc.integer({ min: 1, max: 1000 }), (churn, mb) => {
      expect(
        run(
          churn.map((rate) => rate * mb * MB),
          mb * MB,
        ),
      ).toEqual({ raisedMs: null, breachMs: null })
    }),
  )
})
