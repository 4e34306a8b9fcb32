/**
 * What a merge looks at so that it never makes damage final. Leaves are united from rows, never from what was copied, so
 * a rotten block stays known as damaged whatever happens; but the file it could have been healed in goes.
 *
 *   before   the tables of every layer that will go say exactly what was written, and give each block a cluster of its own
 *            inside the file; so do those of the layer that stays, whose file the merge writes to: a cluster that its
 *            tables name no more would be given to another block. Otherwise the merge does not begin, the layer is
 *            damaged as a whole, and healing comes first
 *   during   each block that is copied has its leaf; otherwise it is copied as it is and recorded as damaged
 */
import { BLOCK_BYTES } from '#shared/blocks/block.ts'
import { GROUP_CHILDREN, leafOf } from '#shared/blocks/hash-tree.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { ABSENT, L2_ENTRIES, ZERO } from '#shared/formats/qcow2/cluster-map.ts'
import { CLUSTER_BYTES } from '#shared/formats/qcow2/header.ts'
import { type LayerTables, readTable } from '#shared/formats/qcow2/layer-reader.ts'
import type { CopiedBlocks } from '#shared/formats/qcow2/merge.ts'
import { ClusterUse, ENTRIES_PER_CLUSTER } from '#shared/formats/qcow2/tables.ts'
import type { LayerKey } from '../catalog/layer-leaves.ts'
import type { LeafGroup } from '../catalog/leaf-groups.ts'
import type { ReplicaContext } from '../context.ts'

const GROUPS_PER_TABLE = L2_ENTRIES / GROUP_CHILDREN

/**
 * `isCompared`: tables, by index, that are held against the stored leaves. Throws `layer-damaged`, recorded. A step for
 * each table.
 */
export function* checkTables(
  context: ReplicaContext,
  { key, layer }: { readonly key: LayerKey; readonly layer: LayerTables },
  isCompared: (tableIndex: number) => boolean = () => true,
): Generator<void, void> {
  const damaged = (what: string) => damagedLayer(context, { key, layer, what })
  const isKnown = areLeavesKnown(context, key)
  const places = placesOf(context, key, layer)
  for (let tableIndex = 0; tableIndex < layer.l2Clusters.length; tableIndex++) {
    const table = readOr(layer, tableIndex, damaged)
    const wrong =
      isKnown && isCompared(tableIndex) ? wrongBlock(context, key, { tableIndex, table }) : undefined
    if (wrong !== undefined)
      throw damaged(`its tables say something else of block ${wrong} than what was written`)
    const astray = table?.findIndex((state) => state > 0 && !places.take(state)) ?? -1
    if (astray >= 0)
      throw damaged(`its tables place block ${tableIndex * L2_ENTRIES + astray} where it cannot be`)
    yield
  }
}

/** Those of the tables taken. */
function placesOf(context: ReplicaContext, key: LayerKey, layer: LayerTables): Places {
  const places = new Places(layer.file.sizeBytes())
  if (clustersOfTables(layer).every((cluster) => places.take(cluster))) return places
  const what = 'its tables lie outside of the file, or two of them in one place'
  throw damagedLayer(context, { key, layer, what })
}

/**
 * In the middle of a merge a table was met that says nothing. Whichever layer has one is recorded as damaged as a whole;
 * healing writes it anew, and the merge is planned again.
 */
export function recordUnreadable(
  context: ReplicaContext,
  layers: readonly { readonly key: LayerKey; readonly layer: LayerTables }[],
): void {
  for (const { key, layer } of layers) {
    try {
      for (let tableIndex = 0; tableIndex < layer.l2Clusters.length; tableIndex++)
        readTable(layer, tableIndex)
    } catch (error) {
      unreadableLayer(context, key, error)
    }
  }
}

/** A layer whose header or tables say nothing is recorded as damaged as a whole. Answers the error to throw. */
export function unreadableLayer({ catalog, clock }: ReplicaContext, key: LayerKey, error: unknown): unknown {
  if (error instanceof HotsiteError && error.code === 'layer-damaged')
    catalog.transaction(() => catalog.damage.addWhole(key, error.message, clock.now()))
  return error
}

function damagedLayer(
  { catalog, clock }: ReplicaContext,
  { key, layer, what }: { key: LayerKey; layer: LayerTables; what: string },
): HotsiteError {
  catalog.transaction(() => catalog.damage.addWhole(key, what, clock.now()))
  return new HotsiteError('layer-damaged', `${layer.path} is not merged: ${what}`, { details: { ...key } })
}

function readOr(
  layer: LayerTables,
  tableIndex: number,
  damaged: (what: string) => HotsiteError,
): Int32Array | undefined {
  try {
    return readTable(layer, tableIndex)
  } catch (error) {
    if (!(error instanceof HotsiteError) || error.code !== 'layer-damaged') throw error
    throw damaged(`its table ${tableIndex} is not one that was written`)
  }
}

/** Clusters of one file, each taken once. */
class Places {
  readonly #clusterCount: number
  readonly #use: ClusterUse

  constructor(fileBytes: number) {
    this.#clusterCount = Math.ceil(fileBytes / CLUSTER_BYTES)
    this.#use = new ClusterUse(this.#clusterCount)
    // The header's.
    this.#use.add(0)
  }

  /** False: it lies outside of the file, or is somebody else's. */
  take(cluster: number): boolean {
    if (cluster >= this.#clusterCount || this.#use.has(cluster)) return false
    this.#use.add(cluster)
    return true
  }
}

function clustersOfTables({ header, l2Clusters, refcountBlocks }: LayerTables): number[] {
  const from = (offset: number, count: number) =>
    Array.from({ length: count }, (_, i) => offset / CLUSTER_BYTES + i)
  return [
    ...from(header.l1Offset, Math.max(1, Math.ceil(header.l1Entries / ENTRIES_PER_CLUSTER))),
    ...from(header.refcountTableOffset, header.refcountTableClusters),
    ...[...l2Clusters, ...refcountBlocks].filter((cluster) => cluster > 0),
  ]
}

/** The first block of a table of which table and stored leaves say different things. */
function wrongBlock(
  { catalog }: ReplicaContext,
  key: LayerKey,
  { tableIndex, table }: { tableIndex: number; table: Int32Array | undefined },
): number | undefined {
  const firstGroup = tableIndex * GROUPS_PER_TABLE
  const groups = catalog.layerLeaves.groups(key, firstGroup, firstGroup + GROUPS_PER_TABLE)
  for (let i = 0; i < L2_ENTRIES; i++) {
    const group = groups.get(firstGroup + Math.floor(i / GROUP_CHILDREN))
    if (!saysTheSame(table?.[i] ?? ABSENT, group, i % GROUP_CHILDREN)) return tableIndex * L2_ENTRIES + i
  }
  return undefined
}

function saysTheSame(state: number, group: LeafGroup | undefined, i: number): boolean {
  const stored = group?.state(i) ?? 'absent'
  if (state === ABSENT) return stored === 'absent'
  return stored === (state === ZERO ? 'zero' : 'data')
}

/** Holds copied blocks against their leaves. */
export function blockCheck(
  context: ReplicaContext,
  keys: readonly LayerKey[],
): (copied: CopiedBlocks) => void {
  const { catalog, clock, log } = context
  const known = keys.map((key) => areLeavesKnown(context, key))
  let open: { readonly key: LayerKey; readonly groupIndex: number; readonly group: LeafGroup } | undefined
  const groupOf = (key: LayerKey, groupIndex: number) => {
    if (open?.key !== key || open.groupIndex !== groupIndex)
      open = { key, groupIndex, group: catalog.layerLeaves.group(key, groupIndex) }
    return open.group
  }
  return ({ upperIndex, blockIndexes, bytes }) => {
    const key = keys[upperIndex]
    if (!key || !known[upperIndex]) return
    blockIndexes.forEach((blockIndex, n) => {
      const i = blockIndex % GROUP_CHILDREN
      const group = groupOf(key, Math.floor(blockIndex / GROUP_CHILDREN))
      const block = bytes.subarray(n * BLOCK_BYTES, (n + 1) * BLOCK_BYTES)
      if (leafOf(block).equals(group.leaf(i))) return
      const what = 'it has another hash than when it was written'
      log.warn('replica.rot-found-by-merge', { ...key, blockIndex })
      catalog.transaction(() => catalog.damage.addBlock(key, blockIndex, { what, nowMs: clock.now() }))
    })
  }
}

/** A damaged row is as good as none: the layer is read and proved again later. */
function areLeavesKnown({ catalog }: ReplicaContext, key: LayerKey): boolean {
  try {
    return catalog.layerLeaves.facts(key) !== undefined && catalog.layerLeaves.groupIndexes(key).length >= 0
  } catch {
    return false
  }
}
