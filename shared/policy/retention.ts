/**
 * Which recovery points stay, site to site: by amount (DESIGN §6).
 *
 * The newest point always stays; it is the base of the next delta as well. Pinned points and points an overlay stands
 * on stay (I10) and are not counted. Of the rest, taken from the oldest on, a point is kept when it lies at least
 * `retentionIntervalSeconds` behind the one kept before it; the newest `retentionPoints` of those stay.
 *
 * Starting from the oldest is what makes the rule converge when it is applied after every copy cycle: what was kept
 * is kept again until it is one too many, so points a minute old never push out those of earlier hours. Counting from
 * the newest would move the grid with every cycle and starve everything behind it.
 *
 * Order comes from sequence numbers (I14). When a clock jumped back, a point looks older than the one before it: how
 * much time lies between them is unknown, and it is kept rather than lost.
 */
export interface RetainablePoint {
  readonly epoch: number
  readonly seq: number
  readonly capturedAtMs: number
  readonly pinned: boolean
  readonly inUse: boolean
}

export interface RetentionPolicy {
  /** Additional points behind the newest. */
  readonly retentionPoints: number
  readonly retentionIntervalSeconds: number
}

export type RetentionReason =
  | 'newest'
  | 'pinned'
  | 'in-use'
  /** Far enough behind the point kept before it. */
  | 'spaced'
  /** Too close behind the point kept before it. */
  | 'too-close'
  /** More points than the policy keeps. */
  | 'over-amount'

export interface RetentionDecision {
  readonly epoch: number
  readonly seq: number
  readonly keep: boolean
  readonly reason: RetentionReason
}

/** A decision for every point, oldest first. */
export function decideRetention(input: {
  readonly points: readonly RetainablePoint[]
  readonly policy: RetentionPolicy
}): RetentionDecision[] {
  const points = [...input.points].sort((a, b) => a.seq - b.seq)
  const newest = points.at(-1)
  const candidates = points.filter((point) => point !== newest && !point.pinned && !point.inUse)
  const spaced = spacedPoints(candidates, input.policy.retentionIntervalSeconds * 1000)
  const amount = input.policy.retentionPoints
  const kept = new Set(amount > 0 ? spaced.slice(-amount) : [])
  const isSpaced = new Set(spaced)

  const reasonFor = (point: RetainablePoint): RetentionReason => {
    if (point === newest) return 'newest'
    if (point.pinned) return 'pinned'
    if (point.inUse) return 'in-use'
    if (kept.has(point)) return 'spaced'
    return isSpaced.has(point) ? 'over-amount' : 'too-close'
  }
  return points.map((point) => {
    const reason = reasonFor(point)
    return {
      epoch: point.epoch,
      seq: point.seq,
      keep: reason !== 'too-close' && reason !== 'over-amount',
      reason,
    }
  })
}

function spacedPoints(candidates: readonly RetainablePoint[], intervalMs: number): RetainablePoint[] {
  const spaced: RetainablePoint[] = []
  for (const point of candidates) {
    const previous = spaced.at(-1)
    const elapsedMs = previous ? point.capturedAtMs - previous.capturedAtMs : intervalMs
    if (elapsedMs >= intervalMs || elapsedMs < 0) spaced.push(point)
  }
  return spaced
}
