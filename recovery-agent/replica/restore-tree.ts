/**
 * The hash tree of a disk's newest state, made anew from the leaves of its layers when the stored one contradicts
 * itself. It is taken only if it comes to the root of the newest point.
 */
import { GROUP_BYTES, groupCountOf } from '#shared/blocks/hash-tree.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { treeOf } from './catalog.ts'
import type { ReplicaContext } from './context.ts'
import { groupsAtPoint, RootProof } from './prove-root.ts'
import { layersOfPoint } from './stored-layers.ts'

/** After `tree-damaged`: whoever met it tries again. Never throws; what cannot be restored stays damaged, and named. */
export function restoreTreeAfter(context: ReplicaContext, error: unknown): void {
  if (!(error instanceof HotsiteError) || error.code !== 'tree-damaged') return
  const { tree } = error.details
  const { catalog, log } = context
  try {
    for (const { vmId } of catalog.replicas()) {
      const newest = catalog.chain(vmId).at(-1)
      const disk = newest?.disks.find(({ diskId }) => treeOf(vmId, diskId) === tree)
      if (!newest || !disk) continue
      const layers = layersOfPoint(context, {
        vmId,
        diskId: disk.diskId,
        chain: catalog.chain(vmId),
        point: newest,
      })
      const isRestored =
        layers.every(({ isKnown }) => isKnown) &&
        catalog.transaction(() => {
          const name = treeOf(vmId, disk.diskId)
          const proof = new RootProof(disk.sizeBytes)
          catalog.leaves.truncate(name, 0)
          for (const group of groupsAtPoint(layers)) {
            if (group.groupIndex >= groupCountOf(disk.sizeBytes)) continue
            proof.add(group)
            const leaves = Buffer.alloc(GROUP_BYTES)
            group.leaves.copy(leaves)
            catalog.leaves.putGroup(name, group.groupIndex, leaves)
          }
          if (!proof.root().equals(disk.root)) throw new RangeError('the leaves do not come to the root')
          return true
        })
      log.warn('replica.tree-restored', { vmId, diskId: disk.diskId, isRestored })
    }
  } catch (failure) {
    log.error('replica.tree-not-restored', { tree, error: failure })
  }
}
