import type { FabricVmId } from '#shared/ids.ts'
import type { EngineDeps } from './engine-deps.ts'

/** What the driver left in a VM that is no longer replicated. One that is gone, or a host that does not answer, holds nobody up. */
export async function forgetInVm(
  { hypervisor, log }: Pick<EngineDeps, 'hypervisor' | 'log'>,
  vm: FabricVmId | undefined,
): Promise<void> {
  if (vm === undefined) return
  try {
    await hypervisor.forget?.(vm)
  } catch (error) {
    log.warn('what is left in a VM that is no longer replicated could not be removed', { vm, error })
  }
}
