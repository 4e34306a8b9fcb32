/** Deltas in the order in which a source sends them after the target was away: the newest point first. */
import { defined } from '#shared/assert.ts'
import type { DiskId } from '#shared/ids.ts'
import { batchesOf, type ModelDelta } from './model-vm.ts'

/** Of runs of deltas that follow each other: the union of all of them, then each but the last as an older point. */
export function newestFirst(runs: readonly (readonly ModelDelta[])[]): {
  readonly union: ModelDelta
  readonly backfills: readonly ModelDelta[]
} {
  const all = runs.flat()
  const backfills = runs.slice(0, -1).map((run, i) => coalesced(run, 'backfill', runs.slice(i + 1).flat()))
  return { union: coalesced(all, 'union', []), backfills }
}

function coalesced(
  run: readonly ModelDelta[],
  kind: 'union' | 'backfill',
  later: readonly ModelDelta[],
): ModelDelta {
  const [first, last] = [defined(run[0], 'first delta'), defined(run.at(-1), 'last delta')]
  const batches = last.disks.flatMap((disk) => {
    const superseded = blocksOf(later, disk.diskId)
    return batchesOf(
      disk,
      [...blocksOf(run, disk.diskId)].sort((a, b) => a - b),
    ).map((batch) => ({
      ...batch,
      blocks: batch.blocks.map((block, i) =>
        kind === 'backfill' && !superseded.has(batch.blockIndexes[i] ?? -1) ? ('held' as const) : block,
      ),
    }))
  })
  return { ...last, header: { ...last.header, baseSeq: first.header.baseSeq, kind }, batches }
}

function blocksOf(deltas: readonly ModelDelta[], diskId: DiskId): Set<number> {
  return new Set(
    deltas.flatMap(({ batches }) =>
      batches.filter((batch) => batch.diskId === diskId).flatMap(({ blockIndexes }) => blockIndexes),
    ),
  )
}
