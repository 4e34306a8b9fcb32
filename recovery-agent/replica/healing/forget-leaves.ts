import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { diskId, vmId } from '#shared/ids.ts'
import type { ReplicaContext } from '../context.ts'

/**
 * Stored leaves of a layer that are not what was written are as good as none: they go, and whoever needs them reads the
 * file, which is believed if the root of a point comes out of it (proof/learn-layer.ts). Answers whether the error was that.
 */
export function forgetDamagedLeaves({ catalog, log }: ReplicaContext, error: unknown): boolean {
  if (!(error instanceof HotsiteError) || error.code !== 'catalog-damaged') return false
  const vm = vmId.safeParse(error.details['vmId'])
  const disk = diskId.safeParse(error.details['diskId'])
  const { seq } = error.details
  if (!vm.success || !disk.success || typeof seq !== 'number') return false
  const key = { vmId: vm.data, diskId: disk.data, seq }
  log.warn('replica.leaves-damaged', { ...key, error })
  catalog.transaction(() => catalog.layerLeaves.remove(key))
  return true
}
