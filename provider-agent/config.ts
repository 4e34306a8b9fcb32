import { z } from 'zod'
import { loadConfig, logConfig, resolveFrom } from '#shared/config.ts'
import { libvirtFabricConfig } from './fabric/libvirt/config.ts'
import { BACKOFF_MAX_MS } from './limits.ts'

/** docs/folder-driver.md, docs/libvirt-driver.md and docs/operations.md list the keys. Paths are relative to the file. */
export const providerConfig = z.strictObject({
  /** As the vault knows this server. */
  name: z.string().min(1),
  dataDir: z.string().min(1),
  fabric: z.discriminatedUnion('driver', [
    z.strictObject({ driver: z.literal('folder'), root: z.string().min(1) }),
    libvirtFabricConfig,
  ]),
  /** Between attempts to reach the coordinator: each failure doubles the bound from minMs to maxMs. */
  reconnect: z
    .strictObject({
      minMs: z.int().min(10).default(1_000),
      maxMs: z.int().positive().default(BACKOFF_MAX_MS),
    })
    .prefault({}),
  log: logConfig.prefault({}),
})
export type ProviderConfig = z.infer<typeof providerConfig>

/** Throws `config-invalid`. Paths in the result are absolute. */
export function loadProviderConfig(path: string): ProviderConfig {
  const config = loadConfig(path, providerConfig)
  const { dir } = config.log
  return {
    ...config,
    dataDir: resolveFrom(path, config.dataDir),
    fabric: withPaths(config.fabric, path),
    log: { ...config.log, dir: dir === undefined ? undefined : resolveFrom(path, dir) },
  }
}

function withPaths(fabric: ProviderConfig['fabric'], path: string): ProviderConfig['fabric'] {
  return fabric.driver === 'folder' ? { ...fabric, root: resolveFrom(path, fabric.root) } : fabric
}
