import type { ReplicaRow } from './catalog/catalog.ts'
import { saveChangedCopies } from './catalog/catalog-copy.ts'
import { rebuildCatalog } from './catalog/rebuild-catalog.ts'
import { repairCatalog } from './catalog/repair-catalog.ts'
import { type ReplicaContext, storeError } from './context.ts'
import { finishRepointing } from './receiving/repoint.ts'
import { removeReplica } from './retire.ts'
import { sweep } from './sweep.ts'

/** Once, before anything is served: what earlier lives left half done. Never throws because of one replica. */
export function recoverReplicas(context: ReplicaContext): void {
  const { catalog, log } = context
  repairCatalog(context)
  rebuildCatalog(context)
  for (const replica of catalog.replicas()) {
    // One replica that cannot be finished (a full disk) must not keep the others from being served.
    try {
      recoverOne(context, replica)
    } catch (error) {
      log.error('replica.recovery-incomplete', { vmId: replica.vmId, error: storeError(context, error) })
    }
    // An earlier life may have died between a change and its copy.
    catalog.markChanged(replica.vmId)
  }
  try {
    saveChangedCopies(context)
  } catch (error) {
    log.error('replica.copy-not-written', { error: storeError(context, error) })
  }
}

function recoverOne(context: ReplicaContext, replica: ReplicaRow): void {
  if (replica.state === 'removing') {
    removeReplica(context, replica)
    return
  }
  finishRepointing(context, replica.vmId)
  // A merge that was interrupted is done again by pruning; every point reads as it should meanwhile.
  sweep(context, replica.vmId)
}
