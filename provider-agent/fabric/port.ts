import type { FabricVmId } from '#shared/ids.ts'
import type { CommandRequest } from '#shared/messages/commands.ts'
import type { InventoryReport } from '#shared/messages/reports.ts'
import type { VmObservation } from '#shared/messages/vm.ts'

/** The inventory without what only the daemon knows. */
export type FabricInventory = Omit<InventoryReport, 'version' | 'nowMs'>

/**
 * A cloud manager: inventory and VM operations (DESIGN §8). Every operation may be repeated (I4), answers with what it
 * observed afterwards (I8), and fails with a HotsiteError whose code names why. Never touches disk bytes.
 */
export interface Fabric {
  inventory(): Promise<FabricInventory>
  /** Resolves when the inventory may have changed, or rejects with the signal's reason. */
  changed(signal: AbortSignal): Promise<void>
  observe(vm: FabricVmId): Promise<VmObservation>
  define(request: CommandRequest<'vm.define'>): Promise<VmObservation>
  start(vm: FabricVmId, heartbeatTimeoutMs: number, signal: AbortSignal): Promise<VmObservation>
  shutDown(vm: FabricVmId, timeoutMs: number, signal: AbortSignal): Promise<VmObservation>
  stop(vm: FabricVmId): Promise<VmObservation>
  remove(vm: FabricVmId): Promise<VmObservation>
  /** Its display as a PNG; null: it is off, has none, or the driver cannot tell. */
  screenshot(vm: FabricVmId): Promise<Buffer | null>
  fence(vm: FabricVmId, epoch: number, reason: string): Promise<VmObservation>
  unfence(vm: FabricVmId): Promise<VmObservation>
}
