/**
 * By amount: of the points given (without those that stay anyway), taken from the oldest on, one is kept when it lies at
 * least `retentionIntervalSeconds` behind the one kept before it; the newest `retentionPoints` of those stay. An
 * application-consistent point that comes too close behind a crash-consistent one takes its place, where the policy asks
 * for such points: otherwise chance would decide whether one of them is kept.
 *
 * Starting from the oldest is what makes the rule converge: points a minute old never push out those of earlier hours.
 * Counting from the newest would move the grid with every cycle and starve everything behind it.
 *
 * When a clock jumped back, a point looks older than the one before it: how much time lies between them is unknown, and
 * it is kept rather than lost.
 */
import type { AmountPolicy, RetainablePoint, Verdict } from './retention.ts'

/** `points` in the order of their sequence numbers. */
export function pointsByAmount(
  points: readonly RetainablePoint[],
  policy: AmountPolicy,
): ReadonlyMap<RetainablePoint, Verdict> {
  const spaced = spacedPoints(points, policy)
  const amount = policy.retentionPoints
  const kept = new Set(amount > 0 ? spaced.slice(-amount) : [])
  const isSpaced = new Set(spaced)
  return new Map(
    points.map((point): [RetainablePoint, Verdict] => {
      if (kept.has(point)) return [point, { keep: true, reason: 'spaced' }]
      return [point, { keep: false, reason: isSpaced.has(point) ? 'over-amount' : 'too-close' }]
    }),
  )
}

function spacedPoints(points: readonly RetainablePoint[], policy: AmountPolicy): RetainablePoint[] {
  const intervalMs = policy.retentionIntervalSeconds * 1000
  const prefersApplication = policy.appConsistentHours > 0
  const spaced: RetainablePoint[] = []
  for (const point of points) {
    const previous = spaced.at(-1)
    const elapsedMs = previous ? point.capturedAtMs - previous.capturedAtMs : intervalMs
    if (elapsedMs >= intervalMs || elapsedMs < 0) spaced.push(point)
    else if (prefersApplication && point.consistency === 'application' && previous?.consistency === 'crash') {
      spaced[spaced.length - 1] = point
    }
  }
  return spaced
}
