/**
 * By time: the newest 90 minutes' worth of copy cycles all stay; behind them one point stands for each clock hour, the
 * last one (the last application-consistent one, where the policy asks for such points and the hour has one), as far as
 * the retention reaches.
 *
 * An hour is a run of neighbouring points whose clocks show the same hour, so that a clock that was set back begins new
 * hours and does not put later points in the place of earlier ones. An hour is as old as the hours between it and the
 * newest say. A step back, or one longer than the whole retention, counts as one hour: one clock that was wrong once, or
 * one long outage, must not cost every point there is. So there are never more hours than the retention has, and one.
 */
import type { RetainablePoint, TimePolicy, Verdict } from './retention.ts'

const HOUR_MS = 3_600_000
const FINE_WINDOW_SECONDS = 90 * 60

/** 180 points of 30 s, 18 of 5 min, 6 of 15 min. */
export function fineWindowPoints(copyFrequencySeconds: number): number {
  return Math.max(1, Math.floor(FINE_WINDOW_SECONDS / copyFrequencySeconds))
}

/** `points` in the order of their sequence numbers, those that stay anyway included: they stand for their hours too. */
export function pointsByTime(
  points: readonly RetainablePoint[],
  policy: TimePolicy,
): ReadonlyMap<RetainablePoint, Verdict> {
  const verdicts = new Map<RetainablePoint, Verdict>()
  const fine = policy.retentionHours === 0 ? 0 : fineWindowPoints(policy.copyFrequencySeconds)
  const inFineWindow = new Set(fine === 0 ? [] : points.slice(-fine))
  let ageHours = 0
  let later: number | undefined
  for (const hour of hoursOf(points).reverse()) {
    if (later !== undefined) ageHours += believedStep(later - hour.number, policy.retentionHours)
    later = hour.number
    const standsForIt = keeperOf(hour.points, policy)
    for (const point of hour.points) {
      if (inFineWindow.has(point)) verdicts.set(point, { keep: true, reason: 'fine-window' })
      else if (policy.retentionHours === 0 || ageHours > policy.retentionHours)
        verdicts.set(point, { keep: false, reason: 'over-time' })
      else if (point === standsForIt) verdicts.set(point, { keep: true, reason: 'last-of-hour' })
      else verdicts.set(point, { keep: false, reason: 'thinned' })
    }
  }
  return verdicts
}

interface Hour {
  /** Since 1970. */
  readonly number: number
  readonly points: RetainablePoint[]
}

function hoursOf(points: readonly RetainablePoint[]): Hour[] {
  const hours: Hour[] = []
  for (const point of points) {
    const number = Math.floor(point.capturedAtMs / HOUR_MS)
    const last = hours.at(-1)
    if (last?.number === number) last.points.push(point)
    else hours.push({ number, points: [point] })
  }
  return hours
}

function believedStep(hours: number, retentionHours: number): number {
  return hours >= 1 && hours <= retentionHours ? hours : 1
}

function keeperOf(points: readonly RetainablePoint[], policy: TimePolicy): RetainablePoint | undefined {
  const application =
    policy.appConsistentHours > 0
      ? points.findLast(({ consistency }) => consistency === 'application')
      : undefined
  return application ?? points.at(-1)
}
