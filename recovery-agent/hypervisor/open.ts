import type { Clock } from '#shared/clock.ts'
import type { Logger } from '#shared/log.ts'
import type { AgentConfig } from '../config.ts'
import { openFolderHypervisor } from './folder/folder-hypervisor.ts'
import type { HostHypervisor } from './port.ts'

export type HypervisorConfig = AgentConfig['hypervisor']

/** The driver that the configuration names. */
export function openHypervisor(
  config: HypervisorConfig,
  context: { readonly dataDir: string; readonly clock: Clock; readonly log: Logger },
): HostHypervisor {
  switch (config.driver) {
    case 'folder':
      return openFolderHypervisor({ ...config, ...context })
  }
}
