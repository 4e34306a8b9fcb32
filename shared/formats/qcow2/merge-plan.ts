/**
 * Merging the layer above into the one below it, as data (DESIGN §5, "Pruning point k").
 *
 * The lower file is no point any more, and its only readers go through the upper one, which answers every block it has
 * itself. So the lower file's cluster of such a block may be overwritten at any moment without anyone seeing it, and no
 * other cluster is touched: not while it is in use, and not when it becomes free in this very merge. That holds for a
 * hypervisor that opened the chain before the merge as well: tables keep their places, and a table that must move
 * leaves its old cluster alone until the next merge.
 *
 * The plan is made from the tables alone, never from refcounts. After a crash it is made again from whatever the tables
 * then say, and whatever an earlier attempt allocated and never referenced counts as free.
 */
import { blockCountOf } from '#shared/blocks/block.ts'
import { ABSENT, type ClusterMap, L2_ENTRIES, ZERO } from './cluster-map.ts'
import type { Layer } from './layer-reader.ts'
import { ClusterUse, coverWithRefcounts, ENTRIES_PER_CLUSTER, l1EntriesOf } from './tables.ts'

export interface CopyRun {
  /** Clusters in the upper file and in the lower one. */
  readonly from: number
  readonly to: number
  readonly count: number
}

export interface MergePlan {
  readonly copies: readonly CopyRun[]
  readonly map: ClusterMap
  readonly sizeBytes: number
  /** Tables whose L2 cluster must be written. */
  readonly changedTables: readonly number[]
  readonly l2Clusters: readonly number[]
  readonly l1Start: number
  readonly refcountTableStart: number
  readonly refcountTableClusters: number
  readonly refcountBlocks: readonly number[]
  /** Everything referenced before or after: what refcounts must cover while tables change. */
  readonly useDuring: ClusterUse
  /** Everything referenced once the tables have changed. */
  readonly useAfter: ClusterUse
  /** Data clusters nobody references any more. */
  readonly freed: readonly number[]
}

const MAX_RUN_CLUSTERS = 16

/** Every cluster the tables of a layer reference, the tables included. */
export function clustersInUse(layer: Layer): ClusterUse {
  const use = new ClusterUse()
  use.add(0)
  const { header } = layer
  addRun(use, header.l1Offset, Math.max(1, Math.ceil(header.l1Entries / ENTRIES_PER_CLUSTER)))
  addRun(use, header.refcountTableOffset, header.refcountTableClusters)
  for (const cluster of [...layer.l2Clusters, ...layer.refcountBlocks]) if (cluster > 0) use.add(cluster)
  for (const [, state] of layer.map.entries()) if (state > 0) use.add(state)
  return use
}

function addRun(use: ClusterUse, offsetBytes: number, clusters: number): void {
  const first = offsetBytes / 65_536
  for (let i = 0; i < clusters; i++) use.add(first + i)
}

export function planMerge(lower: Layer, upper: Layer): MergePlan {
  const useDuring = clustersInUse(lower)
  const map = lower.map.copy()
  const sizeBytes = upper.header.sizeBytes
  const changed = new Set<number>()
  const freed: number[] = []
  const copies = new CopyRuns()

  for (const [blockIndex, state] of upper.map.entries()) {
    const old = map.get(blockIndex)
    if (state === ZERO) {
      // Without a backing file below, an absent block reads as zeros.
      const next = lower.header.backingName === null ? ABSENT : ZERO
      if (old > 0) freed.push(old)
      if (old !== next) changed.add(Math.floor(blockIndex / L2_ENTRIES))
      map.set(blockIndex, next)
      continue
    }
    const cluster = old > 0 ? old : useDuring.allocate()
    copies.add(state, cluster)
    if (cluster === old) continue
    map.set(blockIndex, cluster)
    changed.add(Math.floor(blockIndex / L2_ENTRIES))
  }
  if (sizeBytes < lower.header.sizeBytes) dropFrom(blockCountOf(sizeBytes), { map, changed, freed })

  const l2Clusters: number[] = new Array<number>(
    Math.max(l1EntriesOf(sizeBytes), lower.header.l1Entries),
  ).fill(0)
  lower.l2Clusters.forEach((cluster, i) => {
    l2Clusters[i] = cluster
  })
  for (const tableIndex of changed) l2Clusters[tableIndex] ||= useDuring.allocate()

  const l1ClustersBefore = Math.max(1, Math.ceil(lower.header.l1Entries / ENTRIES_PER_CLUSTER))
  const l1Clusters = Math.max(1, Math.ceil(l2Clusters.length / ENTRIES_PER_CLUSTER))
  const l1Before = lower.header.l1Offset / 65_536
  const l1Start = l1Clusters > l1ClustersBefore ? useDuring.allocateRun(l1Clusters) : l1Before
  const refcounts = placeRefcounts(lower, useDuring)

  const useAfter = useDuring.copy()
  for (const cluster of freed) useAfter.remove(cluster)
  if (l1Start !== l1Before) for (let i = 0; i < l1ClustersBefore; i++) useAfter.remove(l1Before + i)
  return {
    copies: copies.runs,
    map,
    sizeBytes,
    changedTables: [...changed].sort((a, b) => a - b),
    l2Clusters,
    l1Start,
    ...refcounts,
    useDuring,
    useAfter,
    freed,
  }
}

/** A layer of one refcount table cluster covers 16 TiB; the tables of a lower layer never move. */
function placeRefcounts(lower: Layer, use: ClusterUse) {
  return {
    refcountTableStart: lower.header.refcountTableOffset / 65_536,
    refcountTableClusters: lower.header.refcountTableClusters,
    refcountBlocks: coverWithRefcounts(use, lower.refcountBlocks),
  }
}

function dropFrom(
  blockCount: number,
  { map, changed, freed }: { map: ClusterMap; changed: Set<number>; freed: number[] },
): void {
  for (const [blockIndex, state] of map.entries()) {
    if (blockIndex < blockCount) continue
    if (state > 0) freed.push(state)
    map.set(blockIndex, ABSENT)
    changed.add(Math.floor(blockIndex / L2_ENTRIES))
  }
}

class CopyRuns {
  readonly runs: CopyRun[] = []

  add(from: number, to: number): void {
    const last = this.runs.at(-1)
    if (
      last &&
      last.count < MAX_RUN_CLUSTERS &&
      last.from + last.count === from &&
      last.to + last.count === to
    ) {
      this.runs[this.runs.length - 1] = { ...last, count: last.count + 1 }
    } else this.runs.push({ from, to, count: 1 })
  }
}
