/**
 * Leaves that are not known (a replica of an earlier version, a damaged row) are made from the file itself. They are
 * believed only if the root of the point comes out of them: a file that rotted meanwhile does not pass.
 */
import { leafOf } from '#shared/blocks/hash-tree.ts'
import { CLUSTER_BYTES } from '#shared/formats/qcow2/header.ts'
import { inspectLayer } from '#shared/formats/qcow2/inspect.ts'
import type { Layer } from '#shared/formats/qcow2/layer-reader.ts'
import type { Chain } from './chain.ts'
import type { ReplicaContext } from './context.ts'
import { leafGroupsOf } from './leaf-groups.ts'
import { groupsAtPoint, RootProof } from './prove-root.ts'
import { layersOfPoint, type StoredLayer } from './stored-layers.ts'

/** null: the leaves are known from now on. Otherwise why they are not believed. */
export function* learnLayer(
  context: ReplicaContext,
  stored: StoredLayer,
  chain: Chain,
): Generator<void, string | null> {
  const { catalog, files, log } = context
  const { key, member, path } = stored
  if (!files.exists(path)) return 'the file is gone'
  const file = files.open(path, 'read')
  try {
    const expected = { ...stored.expected, fileBytes: undefined }
    const { layer, faults } = yield* inspectLayer(file, path, expected)
    if (!layer || faults.length > 0) return faults.join('; ')
    const leaves = yield* readLeaves(layer)
    const groups = leafGroupsOf({
      entries: layer.map.entries(),
      hasBacking: layer.header.backingName !== null,
      leaf: (blockIndex) => leaves(blockIndex),
    })
    catalog.transaction(() => catalog.layerLeaves.put(key, groups, file.sizeBytes()))
  } finally {
    file.close()
  }
  const why = yield* unproved(context, { stored, chain })
  if (why !== null) {
    catalog.transaction(() => catalog.layerLeaves.remove(key))
    return why
  }
  log.info('replica.leaves-learned', { vmId: key.vmId, diskId: key.diskId, seq: member.seq })
  return null
}

/** 32 bytes for each data block of one layer are held until they are stored. */
function* readLeaves(layer: Layer): Generator<void, (blockIndex: number) => Buffer> {
  const leaves = new Map<number, Buffer>()
  const block = Buffer.allocUnsafe(CLUSTER_BYTES)
  for (const [blockIndex, state] of layer.map.entries()) {
    if (state <= 0) continue
    layer.file.read(block, state * CLUSTER_BYTES)
    leaves.set(blockIndex, Buffer.from(leafOf(block)))
    yield
  }
  return (blockIndex) => leaves.get(blockIndex) ?? Buffer.alloc(32)
}

function* unproved(
  context: ReplicaContext,
  { stored, chain }: { stored: StoredLayer; chain: Chain },
): Generator<void, string | null> {
  const { key, member } = stored
  const disk = member.disks.find(({ diskId }) => diskId === key.diskId)
  // What is being merged is no point any more, and nobody signed it as it will be.
  if (!disk || member.state === 'merging') return null
  const layers = layersOfPoint(context, { ...key, chain, point: member })
  if (!layers.every(({ isKnown }) => isKnown)) return 'what is below it is not known'
  const proof = new RootProof(disk.sizeBytes)
  for (const group of groupsAtPoint(layers)) {
    proof.add(group)
    yield
  }
  return proof.root().equals(disk.root) ? null : 'its blocks do not make the root that was signed'
}
