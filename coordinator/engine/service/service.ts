import type { CoordinatorService } from '../../admin/service.ts'
import { cloudService } from './clouds.ts'
import { jobService } from './jobs.ts'
import { serverService } from './servers.ts'
import { statusService } from './status.ts'
import { type VaultServiceInput, vaultService } from './vaults.ts'
import { vmService } from './vms.ts'

export interface ServiceInput extends VaultServiceInput {
  readonly version: string
}

/** The admin port, put together from one part per thing it speaks of. */
export function createService(input: ServiceInput): CoordinatorService {
  const { engine } = input
  return {
    ...vaultService(input),
    ...serverService(input),
    ...cloudService(engine),
    ...vmService(engine),
    ...jobService(engine),
    ...statusService(engine, input.version),
  }
}
