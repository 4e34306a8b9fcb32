/**
 * What of a backlog travels, after the target was away. Pure.
 *
 * Points that retention would drop at once when they arrived need not arrive: their blocks go into the next point that
 * stays, where the newest version of each block wins. A backlog becomes a few runs of deltas, each sent as one: the union
 * of its blocks instead of their sum, and no point lost that would have been kept.
 *
 * A run ends where the disks or their sizes change: a block beyond the end of a disk that shrank must not come back.
 */
import type { ReplicationPolicy } from '../messages/policy.ts'
import { decideRetention, type RetainablePoint, retentionOf } from './retention.ts'

/** What a source remembers of a point: enough to know what retention makes of it. */
export type KnownPoint = Pick<RetainablePoint, 'epoch' | 'seq' | 'capturedAtMs' | 'consistency' | 'suspect'>

export interface PendingDelta extends KnownPoint {
  readonly changedBlocks: number
  /** Equal for deltas of the same disks with the same sizes. */
  readonly layout: string
}

/** Deltas sent as one; a run of one is a delta as it is. */
export interface CatchUpRun {
  readonly firstSeq: number
  readonly lastSeq: number
}

type KeepingPolicy = Pick<
  ReplicationPolicy,
  'retentionPoints' | 'retentionIntervalSeconds' | 'appConsistentHours'
>

/**
 * Runs over all pending deltas, oldest first. `held`: the points that the target keeps, as far as is known here. Pins and
 * overlays there do not matter: they are about points it has. `maxBlocks`: of one run, for its index lies in memory.
 */
export function planCatchUp(input: {
  readonly held: readonly KnownPoint[]
  readonly pending: readonly PendingDelta[]
  readonly policy: KeepingPolicy
  readonly maxBlocks: number
}): CatchUpRun[] {
  const pending = [...input.pending].sort((a, b) => a.seq - b.seq)
  const staying = new Set(keptPoints([...input.held, ...pending], input.policy).map(({ seq }) => seq))
  const runs: CatchUpRun[] = []
  let firstSeq: number | null = null
  let blocks = 0
  for (const [i, delta] of pending.entries()) {
    const next = pending[i + 1]
    firstSeq ??= delta.seq
    blocks += delta.changedBlocks
    const goesOn =
      next !== undefined &&
      !staying.has(delta.seq) &&
      next.layout === delta.layout &&
      next.epoch === delta.epoch &&
      blocks + next.changedBlocks <= input.maxBlocks
    if (goesOn) continue
    runs.push({ firstSeq, lastSeq: delta.seq })
    firstSeq = null
    blocks = 0
  }
  return runs
}

/** Those of these points that retention keeps, oldest first. */
export function keptPoints<Point extends KnownPoint>(
  points: readonly Point[],
  policy: KeepingPolicy,
): readonly Point[] {
  const retainable = points.map((point) => ({ ...point, pinned: false, inUse: false, damaged: false }))
  const decisions = decideRetention({ points: retainable, policy: retentionOf(policy) })
  const kept = new Set(decisions.filter(({ keep }) => keep).map(({ seq }) => seq))
  return points.filter(({ seq }) => kept.has(seq)).sort((a, b) => a.seq - b.seq)
}
