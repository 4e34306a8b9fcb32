import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { VmId } from '#shared/ids.ts'
import { readCatalogCopy } from './catalog-copy.ts'
import { sumKinds } from './catalog-sums.ts'
import type { ReplicaContext } from './context.ts'
import { rebuildCatalog } from './rebuild-catalog.ts'

/**
 * Rows that are not what was written make way for those of the copy beside the layers. Without a copy they stay, and
 * every request for the VM is refused with `catalog-damaged`: wrong rows are never used. Never throws.
 */
export function repairCatalog(context: ReplicaContext): void {
  const { catalog, log } = context
  const replaced = catalog.sums.vmIds().filter((vmId) => isDamaged(context, vmId) && makeWay(context, vmId))
  if (replaced.length === 0) return
  try {
    rebuildCatalog(context)
  } catch (error) {
    log.error('replica.catalog-not-repaired', { vmIds: replaced, error })
  }
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

function makeWay(context: ReplicaContext, vmId: VmId): boolean {
  const { catalog, log } = context
  try {
    if (!readCatalogCopy(context, vmId)) return false
  } catch (error) {
    log.error('replica.copy-unusable', { vmId, error })
    return false
  }
  catalog.transaction(() => catalog.removeRows(vmId))
  return true
}
