/**
 * The hash tree of a disk's newest state, made anew from the leaves of its layers when the stored one contradicts
 * itself. It is taken only if it comes to the root of the newest point.
 */
import { groupCountOf } from '#shared/blocks/hash-tree.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { VmId } from '#shared/ids.ts'
import { treeOf } from '../catalog/catalog.ts'
import type { ChainDisk, ChainPoint } from '../catalog/chain.ts'
import type { ReplicaContext } from '../context.ts'
import { groupsAtPoint, RootProof } from '../proof/prove-root.ts'
import { layersOfPoint } from '../proof/stored-layers.ts'

/** After `tree-damaged`: whoever met it tries again. Never throws; what cannot be restored stays damaged, and named. */
export function restoreTreeAfter(context: ReplicaContext, error: unknown): void {
  if (!(error instanceof HotsiteError) || error.code !== 'tree-damaged') return
  const { tree } = error.details
  const { catalog, log } = context
  // Of a VM whose rows are damaged nothing is concluded.
  const vmId = catalog.sums.vmIds().find((id) => typeof tree === 'string' && tree.startsWith(`${id}/`))
  if (typeof tree !== 'string' || vmId === undefined) return
  try {
    const newest = catalog.chain(vmId).at(-1)
    const disk = newest?.disks.find(({ diskId }) => treeOf(vmId, diskId) === tree)
    if (newest && disk) restoreTree(context, { vmId, newest, disk })
    // What is there describes no disk: one that comes begins with an empty tree.
    else catalog.transaction(() => catalog.leaves.truncate(tree, 0))
    log.warn('replica.tree-restored', { vmId, tree })
  } catch (failure) {
    log.error('replica.tree-not-restored', { vmId, tree, error: failure })
  }
}

function restoreTree(
  context: ReplicaContext,
  { vmId, newest, disk }: { vmId: VmId; newest: ChainPoint; disk: ChainDisk },
): void {
  const { catalog } = context
  const { diskId, sizeBytes } = disk
  const layers = layersOfPoint(context, { vmId, diskId, chain: catalog.chain(vmId), point: newest })
  if (!layers.every(({ isKnown }) => isKnown)) throw new RangeError('not all leaves of its layers are known')
  catalog.transaction(() => {
    const name = treeOf(vmId, diskId)
    const proof = new RootProof(sizeBytes)
    catalog.leaves.truncate(name, 0)
    for (const group of groupsAtPoint(layers)) {
      if (group.groupIndex >= groupCountOf(sizeBytes)) continue
      proof.add(group)
      catalog.leaves.putGroup(name, group.groupIndex, Buffer.from(group.leaves))
    }
    if (!proof.root().equals(disk.root)) throw new RangeError('the leaves do not come to the root')
  })
}
