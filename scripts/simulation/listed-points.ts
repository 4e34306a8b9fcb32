import type { ReplicaStore } from '#recovery-agent/replica/port.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { VmId } from '#shared/ids.ts'
import type { PointReport } from '#shared/messages/reports.ts'
import type { ProtectedVm } from './protected-vm.ts'

/** What the target lists; nothing while it is off. */
export function pointsOf({ target, vmId }: ProtectedVm): readonly PointReport[] {
  return target.parts ? pointsIn(target.parts.store, vmId) : []
}

/** Whoever asks first may be told that rows are damaged; they have come back when he asks again. */
export function pointsIn(store: ReplicaStore, vmId: VmId): readonly PointReport[] {
  try {
    return store.points(vmId)
  } catch (error) {
    if (!(error instanceof HotsiteError && error.code === 'catalog-damaged')) throw error
    return store.points(vmId)
  }
}
