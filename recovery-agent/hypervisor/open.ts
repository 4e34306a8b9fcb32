import { chmodSync, statSync } from 'node:fs'
import { join, relative } from 'node:path'
import type { Clock } from '#shared/clock.ts'
import { openVirsh } from '#shared/libvirt/virsh.ts'
import type { Logger } from '#shared/log.ts'
import type { AgentConfig } from '../config.ts'
import { openFolderFiles } from './folder/folder-files.ts'
import { openFolderHypervisor } from './folder/folder-hypervisor.ts'
import { openLibvirtFiles } from './libvirt/libvirt-files.ts'
import { openLibvirtHypervisor, VIRSH_TIMEOUT_MS } from './libvirt/libvirt-hypervisor.ts'
import type { HostFiles, HostHypervisor } from './port.ts'

export type HypervisorConfig = AgentConfig['hypervisor']

/** The driver that the configuration names. */
export function openHypervisor(
  config: HypervisorConfig,
  context: { readonly dataDir: string; readonly clock: Clock; readonly log: Logger },
): HostHypervisor {
  switch (config.driver) {
    case 'folder':
      return openFolderHypervisor({ ...config, ...context })
    case 'libvirt':
      return openLibvirtHypervisor({
        ...context,
        uri: config.uri,
        scratchDir: scratchDirOf(config, context.dataDir),
        freezeLimitMs: config.quiesceLimitMs,
      })
  }
}

export function openHostFiles(
  config: HypervisorConfig,
  { dataDir, clock }: { readonly dataDir: string; readonly clock: Clock },
): HostFiles {
  switch (config.driver) {
    case 'folder':
      return openFolderFiles(config)
    case 'libvirt': {
      const virsh = openVirsh({ uri: config.uri, timeoutMs: VIRSH_TIMEOUT_MS })
      return openLibvirtFiles({ virsh, clock, scratchDir: scratchDirOf(config, dataDir) })
    }
  }
}

/**
 * QEMU under libvirt runs as a user of its own: it is given files to open, so it must get through the folders above them.
 * Listing them stays forbidden, and so is everything in files of mode 0600.
 */
export function letHypervisorThrough({ hypervisor, dataDir, replicaDir }: AgentConfig): void {
  if (hypervisor.driver !== 'libvirt') return
  const isInside = !relative(dataDir, replicaDir).startsWith('..')
  for (const dir of isInside ? [dataDir, replicaDir] : [replicaDir])
    chmodSync(dir, statSync(dir).mode | 0o111)
}

function scratchDirOf({ scratchDir }: { readonly scratchDir?: string | undefined }, dataDir: string): string {
  return scratchDir ?? join(dataDir, 'scratch')
}
