/**
 * A layer whose tables, size or name are wrong, or that is gone, is written anew: every cluster of the old file that
 * still hashes to a leaf of the layer is taken over, wherever it lies. What is left is reserved, and damaged block by
 * block from then on; the source may have it (repair.ts).
 *
 * Of a layer in the middle of a merge only those blocks are taken that no layer above it in the merge has: the merge
 * begins anew, and brings the others.
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
import type { ReplicaContext } from '../context.ts'
import { repairSuffix } from '../names.ts'
import type { StoredLayer } from '../proof/stored-layers.ts'
import { type SeenBlocks, seenBlocks } from '../proof/verify-disk.ts'

/** Leaves looked for in one reading of the old file, about: some 100 MiB of memory. More are looked for in another. */
const MAX_SOUGHT = 1 << 19

export function* rebuildLayer(context: ReplicaContext, stored: StoredLayer): Generator<void, void> {
  const { catalog, clock, crash, files, log } = context
  const { key, path } = stored
  const temporary = path + repairSuffix
  const isSeenIn = seenBlocks(context, stored, catalog.chain(key.vmId))
  if (!isSeenIn) return
  files.ensureFolder(dirname(path))
  const { keptBlocks, lost, fileBytes } = yield* writeAnew(context, { stored, isSeenIn }, temporary)
  crash('replica.rebuild-written')
  files.rename(temporary, path)
  files.syncFolder(dirname(path))
  crash('replica.rebuild-renamed')
  catalog.transaction(() => {
    catalog.layerLeaves.setFileBytes(key, fileBytes)
    catalog.damage.clearLayer(key)
    const what = 'lost with the file it was in'
    catalog.damage.addBlocks(key, lost, { what, nowMs: clock.now() })
  })
  const { vmId, diskId, seq } = key
  log.info('replica.layer-rebuilt', { vmId, diskId, seq, keptBlocks, lostBlocks: lost.length })
}

interface Written {
  readonly keptBlocks: number
  readonly lost: readonly number[]
  readonly fileBytes: number
}

/** A file that did not come to its end goes at once: it may be what fills the disk everything else is received on. */
function* writeAnew(
  { files }: ReplicaContext,
  { stored, isSeenIn }: { readonly stored: StoredLayer; readonly isSeenIn: SeenBlocks },
  temporary: string,
): Generator<void, Written> {
  const { path, expected } = stored
  const old = files.exists(path) ? files.open(path, 'read') : undefined
  let isWhole = false
  try {
    const target = files.open(temporary, 'create')
    try {
      const writer = new LayerWriter(target)
      const places = old && (yield* inspectLayer(old, path, expected)).layer
      const taken = yield* takeBlocks(stored, { writer, old, places, isSeenIn })
      for (const blockIndex of taken.lost) writer.reserve(blockIndex)
      writer.seal({ sizeBytes: expected.sizeBytes, backingName: expected.backingName })
      isWhole = true
      return { ...taken, fileBytes: target.sizeBytes() }
    } finally {
      target.close()
      if (!isWhole) files.remove(temporary)
    }
  } finally {
    old?.close()
  }
}

interface Missing {
  readonly at: number
  readonly leaf: Buffer
}

interface Taking {
  readonly writer: LayerWriter
  readonly old: BlockFile | undefined
  /** What is readable of the old tables. */
  readonly places: Layer | undefined
  readonly isSeenIn: SeenBlocks
}

/** Blocks that are where the old tables say, and those that are anywhere else in the old file. `lost`: the others. */
function* takeBlocks(
  stored: StoredLayer,
  { writer, old, places, isSeenIn }: Taking,
): Generator<void, Omit<Written, 'fileBytes'>> {
  const lost: number[] = []
  let missing: Missing[] = []
  let keptBlocks = 0
  for (const groupIndex of stored.groupIndexes()) {
    const group = stored.group(groupIndex)
    const isSeen = isSeenIn(groupIndex)
    for (let i = 0; i < GROUP_CHILDREN; i++) {
      if (!isSeen(i)) continue
      const at = groupIndex * GROUP_CHILDREN + i
      const state = group.state(i)
      if (state === 'zero') writer.put([at], [null])
      if (state !== 'data') continue
      const cluster = places?.map.get(at) ?? 0
      const block = old && cluster > 0 ? readCluster(old, cluster) : undefined
      if (block && leafOf(block).equals(group.leaf(i))) {
        writer.put([at], [block])
        keptBlocks++
      } else if (old) missing.push({ at, leaf: group.leaf(i) })
      else lost.push(at)
    }
    if (old && missing.length >= MAX_SOUGHT) {
      keptBlocks += yield* takeFromAnywhere(missing, { writer, old, lost })
      missing = []
    }
    // No block comes again, so nothing has to be remembered of those that came.
    writer.markDurable()
    yield
  }
  if (old) keptBlocks += yield* takeFromAnywhere(missing, { writer, old, lost })
  return { keptBlocks, lost: lost.sort((a, b) => a - b) }
}

/** Answers how many were found; the others are added to `lost`. */
function* takeFromAnywhere(
  missing: readonly Missing[],
  { writer, old, lost }: { writer: LayerWriter; old: BlockFile; lost: number[] },
): Generator<void, number> {
  const sought = Map.groupBy(missing, ({ leaf }) => leaf.toString('latin1'))
  const clusters = Math.ceil(old.sizeBytes() / CLUSTER_BYTES)
  let found = 0
  for (let cluster = 1; cluster < clusters && sought.size > 0; cluster++) {
    const block = readCluster(old, cluster)
    const name = block && leafOf(block).toString('latin1')
    for (const { at } of (name !== undefined && sought.get(name)) || []) {
      writer.put([at], [block ?? null])
      found++
    }
    if (name !== undefined) sought.delete(name)
    yield
  }
  for (const left of sought.values()) for (const { at } of left) lost.push(at)
  return found
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
