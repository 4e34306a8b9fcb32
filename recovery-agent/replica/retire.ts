/** The end of a replica: a failover that became final, or protection that was removed. */
import { join } from 'node:path'
import type { OverlayRow, ReplicaRow } from './catalog/catalog.ts'
import { saveChangedCopies } from './catalog/catalog-copy.ts'
import type { ReplicaContext } from './context.ts'

/**
 * Points go; their files are then leftovers. A raw overlay stands on nothing. A qcow2 overlay needs its point's layer
 * and what is below it: the older points are merged into it by pruning.
 */
export function commitReplica(
  { catalog, crash }: ReplicaContext,
  replica: ReplicaRow,
  overlay: OverlayRow,
): void {
  const { vmId } = replica
  catalog.transaction(() => {
    for (const member of catalog.chain(vmId)) {
      if (overlay.format === 'raw' || member.seq > overlay.point.seq)
        catalog.removeFromChain(vmId, member.seq)
      for (const { diskId } of member.disks) catalog.dropTree(vmId, diskId)
    }
    catalog.putOverlay({ ...overlay, state: 'committed' })
    catalog.putReplica({ ...replica, state: 'committed' })
  })
  crash('replica.commit-recorded')
}

/** Committed overlays are somebody's disks now: their files stay. Repeatable; `recover` finishes it. */
export function removeReplica(context: ReplicaContext, replica: ReplicaRow): void {
  const { catalog, crash, files, paths } = context
  const { vmId } = replica
  catalog.putReplica({ ...replica, state: 'removing' })
  saveChangedCopies(context)
  crash('replica.remove-marked')
  files.remove(paths.vmFolder(vmId))
  files.syncFolder(paths.replicas)
  const overlays = catalog.overlays(vmId)
  for (const overlay of overlays) {
    if (overlay.state !== 'committed') files.remove(paths.overlayFolder(vmId, overlay.overlayId))
  }
  if (files.exists(join(paths.overlays, vmId))) files.syncFolder(join(paths.overlays, vmId))
  crash('replica.remove-files-removed')
  catalog.transaction(() => {
    for (const member of catalog.chain(vmId)) {
      catalog.removeFromChain(vmId, member.seq)
      for (const { diskId } of member.disks) catalog.dropTree(vmId, diskId)
    }
    catalog.deletePartial(vmId)
    for (const { topSeq } of catalog.backfills.list(vmId)) catalog.backfills.remove(vmId, topSeq)
    for (const overlay of overlays) {
      if (overlay.state !== 'committed') catalog.deleteOverlay(vmId, overlay.overlayId)
    }
    catalog.deleteReplica(vmId)
  })
}
