import type { VmId } from '#shared/ids.ts'
import type { RaiseEvent } from '../reports/events.ts'

/** One event when merges begin to slow a VM's copies, and one when they have caught up. */
export function createMergeAlarm(raise: RaiseEvent): (vmId: VmId, slowMs: number) => void {
  const slowed = new Set<VmId>()
  return (vmId, slowMs) => {
    if (slowMs > 0 === slowed.has(vmId)) return
    if (slowMs > 0) slowed.add(vmId)
    else slowed.delete(vmId)
    const message =
      slowMs > 0
        ? `merges of VM ${vmId} lag behind: its copies come ${Math.ceil(slowMs / 1000)} s later until they have caught up`
        : `merges of VM ${vmId} have caught up: copies come at the frequency of the policy again`
    raise({ severity: slowMs > 0 ? 'warning' : 'info', code: 'merge-debt', message, vmId })
  }
}
