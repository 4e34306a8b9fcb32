/**
 * After the target was away: the newest point is sent first, and the older ones that stay are brought below it. Pure.
 *
 * What travels first is the union of several runs (catch-up.ts), under the description of the newest of their points. It
 * has every block that any of them has, which is what lets the others be put between it and the point it stands on. A
 * block travels with payload once for each version that a point which stays needs, as when the runs come in their order.
 *
 * All of it must be of the same disks with the same sizes, the point it stands on included: otherwise a layer would have
 * to say what a disk shows that is another one below.
 */
import type { CatchUpRun, KnownPoint, PendingDelta } from './catch-up.ts'

export interface Union extends CatchUpRun {
  /** Those to bring afterwards, oldest first: the ends of all runs but the last. */
  readonly points: readonly KnownPoint[]
}

/** undefined: the first run is sent as it is. `runs`: those of `pending`. `maxBlocks`: of the union, for its index lies in memory. */
export function planUnion(input: {
  readonly runs: readonly CatchUpRun[]
  readonly pending: readonly PendingDelta[]
  /** Of the point the first run stands on; null: not known. */
  readonly baseLayout: string | null
  readonly maxBlocks: number
}): Union | undefined {
  const { runs, pending, baseLayout, maxBlocks } = input
  const [first] = runs
  const ends: PendingDelta[] = []
  let blocks = 0
  for (const run of runs) {
    const deltas = pending.filter(({ seq }) => seq >= run.firstSeq && seq <= run.lastSeq)
    const end = deltas.find(({ seq }) => seq === run.lastSeq)
    blocks += deltas.reduce((sum, { changedBlocks }) => sum + changedBlocks, 0)
    const isOfOneKind = deltas.every(
      ({ layout, epoch }) => layout === baseLayout && epoch === (ends[0] ?? end)?.epoch,
    )
    if (!end || !isOfOneKind || blocks > maxBlocks) break
    ends.push(end)
  }
  const newest = ends.at(-1)
  if (!first || !newest || ends.length < 2) return undefined
  return { firstSeq: first.firstSeq, lastSeq: newest.seq, points: ends.slice(0, -1).map(knownPoint) }
}

function knownPoint({ epoch, seq, capturedAtMs, consistency, suspect }: KnownPoint): KnownPoint {
  return { epoch, seq, capturedAtMs, consistency, suspect }
}
