/**
 * A layer whose tables, size or name are wrong, or that is gone, is written anew: every cluster of the old file that
 * still hashes to a leaf of the layer is taken over, wherever it lies. What is left is reserved, and damaged block by
 * block from then on; the source may have it (repair.ts).
 *
 * The layer counts as damaged as a whole until the last transaction. A crash before that leaves the old file, or the
 * new one under a length nobody recorded: both are found damaged again and the rebuild is repeated.
 */
import { dirname } from 'node:path'
import { GROUP_CHILDREN, leafOf } from '#shared/blocks/hash-tree.ts'
import type { BlockFile } from '#shared/formats/block-file.ts'
import { CLUSTER_BYTES } from '#shared/formats/qcow2/header.ts'
import { inspectLayer } from '#shared/formats/qcow2/inspect.ts'
import type { Layer } from '#shared/formats/qcow2/layer-reader.ts'
import { LayerWriter } from '#shared/formats/qcow2/layer-writer.ts'
import type { ReplicaContext } from './context.ts'
import { repairSuffix } from './names.ts'
import type { StoredLayer } from './stored-layers.ts'

/** Leaves looked for in one reading of the old file: some 100 MiB of memory; more are looked for in another reading. */
const MAX_SOUGHT = 1 << 19

export interface Rebuilt {
  readonly keptBlocks: number
  readonly lostBlocks: number
}

export function* rebuildLayer(context: ReplicaContext, stored: StoredLayer): Generator<void, Rebuilt> {
  const { catalog, clock, crash, files, log } = context
  const { key, path, expected } = stored
  const temporary = path + repairSuffix
  files.ensureFolder(dirname(path))
  const old = files.exists(path) ? files.open(path, 'read') : undefined
  let lost: number[]
  let keptBlocks: number
  let fileBytes: number
  try {
    const target = files.open(temporary, 'create')
    try {
      const writer = new LayerWriter(target)
      const places = old && (yield* inspectLayer(old, path, expected)).layer
      const found = yield* takeFromPlaces(stored, { writer, old, places })
      keptBlocks = found.keptBlocks
      lost = old ? yield* takeFromAnywhere(found.missing, { writer, old }) : found.missing.map(({ at }) => at)
      keptBlocks += found.missing.length - lost.length
      for (const blockIndex of lost) writer.reserve(blockIndex)
      writer.seal({ sizeBytes: expected.sizeBytes, backingName: expected.backingName })
      fileBytes = target.sizeBytes()
    } finally {
      target.close()
    }
  } finally {
    old?.close()
  }
  crash('replica.rebuild-written')
  files.rename(temporary, path)
  files.syncFolder(dirname(path))
  crash('replica.rebuild-renamed')
  catalog.transaction(() => {
    catalog.layerLeaves.setFileBytes(key, fileBytes)
    catalog.damage.clearLayer(key)
    const what = 'lost with the file it was in'
    for (const blockIndex of lost) catalog.damage.addBlock(key, blockIndex, { what, nowMs: clock.now() })
  })
  const { vmId, diskId, seq } = key
  log.info('replica.layer-rebuilt', { vmId, diskId, seq, keptBlocks, lostBlocks: lost.length })
  return { keptBlocks, lostBlocks: lost.length }
}

interface Missing {
  readonly at: number
  readonly leaf: Buffer
}

/** Blocks that are where the old tables say. */
function* takeFromPlaces(
  stored: StoredLayer,
  of: { writer: LayerWriter; old: BlockFile | undefined; places: Layer | undefined },
): Generator<void, { missing: Missing[]; keptBlocks: number }> {
  const missing: Missing[] = []
  let keptBlocks = 0
  for (const groupIndex of stored.groupIndexes()) {
    const group = stored.group(groupIndex)
    for (let i = 0; i < GROUP_CHILDREN; i++) {
      const at = groupIndex * GROUP_CHILDREN + i
      const state = group.state(i)
      if (state === 'zero') of.writer.put([at], [null])
      if (state !== 'data') continue
      const cluster = of.places?.map.get(at) ?? 0
      const block = of.old && cluster > 0 ? readCluster(of.old, cluster) : undefined
      if (block && leafOf(block).equals(group.leaf(i))) {
        of.writer.put([at], [block])
        keptBlocks++
      } else missing.push({ at, leaf: group.leaf(i) })
    }
    yield
  }
  return { missing, keptBlocks }
}

/** Answers the blocks that are nowhere in the file. */
function* takeFromAnywhere(
  missing: readonly Missing[],
  of: { writer: LayerWriter; old: BlockFile },
): Generator<void, number[]> {
  const lost: number[] = []
  for (let first = 0; first < missing.length; first += MAX_SOUGHT) {
    const sought = Map.groupBy(missing.slice(first, first + MAX_SOUGHT), ({ leaf }) =>
      leaf.toString('latin1'),
    )
    const clusters = Math.ceil(of.old.sizeBytes() / CLUSTER_BYTES)
    for (let cluster = 1; cluster < clusters && sought.size > 0; cluster++) {
      const block = readCluster(of.old, cluster)
      const name = block && leafOf(block).toString('latin1')
      for (const { at } of (name !== undefined && sought.get(name)) || [])
        of.writer.put([at], [block ?? null])
      if (name !== undefined) sought.delete(name)
      yield
    }
    for (const left of sought.values()) lost.push(...left.map(({ at }) => at))
  }
  return lost.sort((a, b) => a - b)
}

function readCluster(file: BlockFile, cluster: number): Buffer | undefined {
  const block = Buffer.alloc(CLUSTER_BYTES)
  try {
    file.read(block, cluster * CLUSTER_BYTES)
    return block
  } catch {
    // A sector the disk has lost: the block is as good as gone.
    return undefined
  }
}
