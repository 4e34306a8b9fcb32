import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { VmId } from '#shared/ids.ts'
import type { ReplicaContext } from '../context.ts'
import { readCatalogCopy } from './catalog-copy.ts'
import { sumKinds, unlessDamaged } from './catalog-sums.ts'
import { rebuildReplica } from './rebuild-catalog.ts'

/**
 * Rows that are not what was written make way for those of the copy beside the layers. Without a copy they stay, and
 * every request for the VM is refused with `catalog-damaged`: wrong rows are never used. Never throws.
 */
export function repairCatalog(context: ReplicaContext): void {
  for (const vmId of context.catalog.sums.vmIds()) if (isDamaged(context, vmId)) repair(context, vmId)
}

function isDamaged({ catalog, log }: ReplicaContext, vmId: VmId): boolean {
  for (const kind of sumKinds) {
    try {
      catalog.sums.ensure(vmId, kind)
    } catch (error) {
      if (!(error instanceof HotsiteError)) throw error
      log.error('replica.rows-damaged', { vmId, kind, error })
      return true
    }
  }
  return false
}

function repair(context: ReplicaContext, vmId: VmId): void {
  const { catalog, log } = context
  try {
    const copy = readCatalogCopy(context, vmId)
    if (!copy) return
    // The copy is written after the row: a row that is sound, or was when it was read, has the epoch in force (I5).
    const held = unlessDamaged(() => catalog.replica(vmId))
    const isOlder = held !== undefined && held.epoch < copy.replica.epoch
    rebuildReplica(context, held && !isOlder ? { ...copy, replica: held } : copy)
  } catch (error) {
    log.error('replica.catalog-not-repaired', { vmId, error })
  }
}
