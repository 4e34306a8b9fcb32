/** Points as the tests of retention write them: numbers, minutes and marks. */
import { decideRetention, type RetainablePoint, type RetentionPolicy } from '../retention.ts'

export const minuteMs = 60_000
export const hourMs: number = 60 * minuteMs

export function point(seq: number, minutes: number, extra: Partial<RetainablePoint> = {}): RetainablePoint {
  return {
    epoch: 1,
    seq,
    capturedAtMs: minutes * minuteMs,
    consistency: 'crash',
    pinned: false,
    inUse: false,
    suspect: false,
    damaged: false,
    ...extra,
  }
}

export const hourly = (retentionPoints: number, appConsistentHours = 0): RetentionPolicy => ({
  kind: 'amount',
  retentionPoints,
  retentionIntervalSeconds: 3600,
  appConsistentHours,
})

export const application = { consistency: 'application' } as const

/** Days of copy cycles, retention applied after each one. Answers what was kept after every cycle. */
export function simulate(
  gapsMinutes: readonly number[],
  policy: RetentionPolicy,
  mark: (seq: number) => Partial<RetainablePoint> = () => ({}),
): RetainablePoint[][] {
  let kept: RetainablePoint[] = []
  let minutes = 0
  return gapsMinutes.map((gap, i) => {
    minutes += gap
    const points = [...kept, point(i + 1, minutes, mark(i + 1))]
    const keep = new Set(
      decideRetention({ points, policy })
        .filter((d) => d.keep)
        .map((d) => d.seq),
    )
    kept = points.filter(({ seq }) => keep.has(seq))
    return kept
  })
}
