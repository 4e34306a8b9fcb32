/**
 * Leaves that are not known (a replica of an earlier version, a damaged row) are made from the file itself. They are
 * believed only if the root of the point comes out of them: a file that rotted meanwhile does not pass.
 */
import { leafOf } from '#shared/blocks/hash-tree.ts'
import { CLUSTER_BYTES } from '#shared/formats/qcow2/header.ts'
import { inspectLayer } from '#shared/formats/qcow2/inspect.ts'
import type { Layer } from '#shared/formats/qcow2/layer-reader.ts'
import type { Chain } from '../catalog/chain.ts'
import { leafGroupsOf } from '../catalog/leaf-groups.ts'
import type { ReplicaContext } from '../context.ts'
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
    yield* storeLeaves(context, stored, layer)
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

/** Group by group, so that memory does not grow with the layer. */
function* storeLeaves(
  { catalog }: ReplicaContext,
  { key }: StoredLayer,
  layer: Layer,
): Generator<void, void> {
  const { layerLeaves } = catalog
  const block = Buffer.allocUnsafe(CLUSTER_BYTES)
  const groups = leafGroupsOf({
    entries: layer.map.entries(),
    hasBacking: layer.header.backingName !== null,
    leaf: (blockIndex) => {
      layer.file.read(block, layer.map.get(blockIndex) * CLUSTER_BYTES)
      return leafOf(block)
    },
  })
  const leafSet = layerLeaves.begin()
  let groupCount = 0
  let blockCount = 0
  let isFinished = false
  try {
    for (const [groupIndex, group] of groups) {
      layerLeaves.add(leafSet, groupIndex, group)
      groupCount++
      blockCount += group.blockCount
      yield
    }
    const fileBytes = layer.file.sizeBytes()
    catalog.transaction(() => layerLeaves.finish(key, { leafSet, groupCount, blockCount, fileBytes }))
    isFinished = true
  } finally {
    if (!isFinished) layerLeaves.drop(leafSet)
  }
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
