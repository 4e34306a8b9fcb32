/**
 * Which recovery points stay, by amount (site to site) and by time (to a storage account): DESIGN §6. One pure function
 * from the points and the policy to a decision with a reason for every point. Order comes from sequence numbers (I14),
 * and "now" is the capture of the newest point: while nothing is copied nothing grows old.
 *
 * Whatever the policy: the newest point stays, it is the base of the next delta; pinned points and points an overlay
 * stands on stay (I10); a suspect point stays for a while together with the one before it. None of these is counted.
 * A damaged point never takes the place of a sound one: sound points are decided as if it were not there, and it stays
 * itself only where it would if it were sound, since it may yet be healed. While the newest point is damaged, the newest
 * sound one stays as well.
 *
 * Both rules converge when they are applied after every copy cycle: what was kept is kept again until it is one too
 * many or too old, and what was dropped would be dropped again.
 */
import { pointsByAmount } from './retention-by-amount.ts'
import { pointsByTime } from './retention-by-time.ts'

export interface RetainablePoint {
  readonly epoch: number
  readonly seq: number
  readonly capturedAtMs: number
  readonly consistency: 'crash' | 'application'
  readonly pinned: boolean
  readonly inUse: boolean
  readonly suspect: boolean
  readonly damaged: boolean
}

export interface AmountPolicy {
  readonly kind: 'amount'
  /** Additional points behind the newest. */
  readonly retentionPoints: number
  readonly retentionIntervalSeconds: number
  /** 0: application-consistent points are not made on purpose, and not preferred. */
  readonly appConsistentHours: number
}

export interface TimePolicy {
  readonly kind: 'time'
  /** 0 to 24; 0 keeps the latest only. */
  readonly retentionHours: number
  readonly copyFrequencySeconds: number
  readonly appConsistentHours: number
}

export type RetentionPolicy = AmountPolicy | TimePolicy

/** Why a point stays. */
export type KeepReason =
  | 'newest'
  | 'pinned'
  | 'in-use'
  /** The newest point is damaged; this is the newest one that is not. */
  | 'newest-sound'
  /** The last point before a suspect one. */
  | 'before-suspect'
  /** Marks where the suspicion began; what lies before it is held because of it. */
  | 'suspect'
  /** By amount: far enough behind the point kept before it. */
  | 'spaced'
  /** By time: one of the newest points, every one of which stays. */
  | 'fine-window'
  /** By time: stands for its hour. */
  | 'last-of-hour'
  /** Damaged; it would stay if it were not, and may be healed. */
  | 'may-heal'

/** Why a point goes. */
export type DropReason =
  /** By amount: too close behind the point kept before it. */
  | 'too-close'
  /** By amount: more points than the policy keeps. */
  | 'over-amount'
  /** By time: another point stands for its hour. */
  | 'thinned'
  /** By time: older than the policy keeps. */
  | 'over-time'
  /** Damaged, and it would go soon if it were sound. */
  | 'damaged'

export type Verdict =
  | { readonly keep: true; readonly reason: KeepReason }
  | { readonly keep: false; readonly reason: DropReason }

export type RetentionDecision = Verdict & { readonly epoch: number; readonly seq: number }

/** Suspicions that hold points at the same time, the newest first: an alarm every night must not fill the disk. */
export const MAX_SUSPICIONS = 3
/** Long enough to notice over a holiday that a disk was encrypted. */
export const SUSPICION_HOLD_DAYS = 14
const DAY_MS = 86_400_000

/** The policy of site to site replication as this file wants it. */
export function retentionOf(policy: {
  readonly retentionPoints: number
  readonly retentionIntervalSeconds: number
  readonly appConsistentHours: number
}): AmountPolicy {
  const { retentionPoints, retentionIntervalSeconds, appConsistentHours } = policy
  return { kind: 'amount', retentionPoints, retentionIntervalSeconds, appConsistentHours }
}

/** A decision for every point, oldest first. */
export function decideRetention(input: {
  readonly points: readonly RetainablePoint[]
  readonly policy: RetentionPolicy
}): RetentionDecision[] {
  const points = [...input.points].sort((a, b) => a.seq - b.seq)
  const held = heldPoints(points)
  const ruled = (of: readonly RetainablePoint[]): ReadonlyMap<RetainablePoint, Verdict> =>
    input.policy.kind === 'amount'
      ? pointsByAmount(
          of.filter((point) => !held.has(point)),
          input.policy,
        )
      : pointsByTime(of, input.policy)
  const asIfSound = ruled(points)
  const sound = ruled(points.filter(({ damaged }) => !damaged))

  const verdictOf = (point: RetainablePoint): Verdict => {
    const hold = held.get(point)
    if (hold) return { keep: true, reason: hold }
    if (!point.damaged) return sound.get(point) ?? { keep: true, reason: 'newest' }
    return asIfSound.get(point)?.keep === false
      ? { keep: false, reason: 'damaged' }
      : { keep: true, reason: 'may-heal' }
  }
  return points.map((point) => ({ epoch: point.epoch, seq: point.seq, ...verdictOf(point) }))
}

/** What stays whatever the policy, and is not counted. */
function heldPoints(points: readonly RetainablePoint[]): ReadonlyMap<RetainablePoint, KeepReason> {
  const held = new Map<RetainablePoint, KeepReason>()
  const newest = points.at(-1)
  if (!newest) return held
  for (const { before, first } of suspicions(points)) {
    held.set(first, 'suspect')
    held.set(before, 'before-suspect')
  }
  const newestSound = points.findLast(({ damaged }) => !damaged)
  if (newestSound) held.set(newestSound, 'newest-sound')
  for (const point of points) {
    if (point.inUse) held.set(point, 'in-use')
    if (point.pinned) held.set(point, 'pinned')
  }
  return held.set(newest, 'newest')
}

/** Where points that are suspect begin, with the last point nobody doubts before each. */
function suspicions(
  points: readonly RetainablePoint[],
): readonly { readonly before: RetainablePoint; readonly first: RetainablePoint }[] {
  const newestAtMs = points.at(-1)?.capturedAtMs ?? 0
  return points
    .flatMap((first, i) => {
      if (!first.suspect || points[i - 1]?.suspect) return []
      if (newestAtMs - first.capturedAtMs > SUSPICION_HOLD_DAYS * DAY_MS) return []
      const before = points.slice(0, i).findLast(({ suspect, damaged }) => !suspect && !damaged)
      return before ? [{ before, first }] : []
    })
    .slice(-MAX_SUSPICIONS)
}
