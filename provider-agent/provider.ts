import { join } from 'node:path'
import { commandResultSchema, openCommandResultStore } from '#shared/agent-link/command-results.ts'
import { runCoordinatorLink } from '#shared/agent-link/coordinator-link.ts'
import { openReportOutbox, reportOutboxSchema } from '#shared/agent-link/report-outbox.ts'
import type { Clock } from '#shared/clock.ts'
import { readFabric } from '#shared/folder/layout.ts'
import type { Logger } from '#shared/log.ts'
import type { Rng } from '#shared/rng.ts'
import { openSqlite } from '#shared/sqlite.ts'
import type { ServerIdentity } from '#shared/trust/identity-store.ts'
import type { ProviderConfig } from './config.ts'
import { openFolderFabric } from './fabric/folder/folder-fabric.ts'
import { openLibvirtFabric } from './fabric/libvirt/libvirt-fabric.ts'
import type { Fabric } from './fabric/port.ts'
import { providerCommandKinds, providerHandlers } from './handlers.ts'
import { reportInventory } from './report-inventory.ts'

const migrations = [{ name: 'commands and reports', sql: `${commandResultSchema}${reportOutboxSchema}` }]

export interface StartProviderOptions {
  readonly config: ProviderConfig
  readonly identity: ServerIdentity
  readonly clock: Clock
  readonly rng: Rng
  readonly log: Logger
}

export interface Provider {
  readonly fabric: Fabric
  /** Serves the coordinator and reports the inventory until the signal; then everything is closed. Once. */
  run(signal: AbortSignal): Promise<void>
}

/** Throws `config-invalid` when there is no such fabric, so that a wrong path is seen at the start. */
export function openFabric({
  config,
  clock,
  log,
}: Pick<StartProviderOptions, 'config' | 'clock' | 'log'>): Fabric {
  const { fabric } = config
  const of = { clock, log: log.with({ fabric: fabric.driver }) }
  if (fabric.driver === 'libvirt') return openLibvirtFabric({ config: fabric, ...of })
  readFabric(fabric.root)
  return openFolderFabric({ root: fabric.root, ...of })
}

/** The caller holds the data folder (`lockDataDir`). Throws `data-version-unknown`. */
export function startProvider(options: StartProviderOptions): Provider {
  const { config, identity, clock, rng, log } = options
  const fabric = openFabric(options)
  const db = openSqlite({ path: join(config.dataDir, 'provider.db'), migrations, profile: 'control' })
  const reports = openReportOutbox(db)
  const store = openCommandResultStore(db)
  return {
    fabric,
    async run(signal) {
      // One of the two failing ends the other, so that a daemon is never half alive.
      const stop = new AbortController()
      const either = AbortSignal.any([signal, stop.signal])
      const shared = { reports, clock, log, signal: either }
      const parts = [
        runCoordinatorLink({
          ...shared,
          identity,
          rng,
          store,
          kinds: providerCommandKinds,
          handlers: providerHandlers(fabric),
          backoff: config.reconnect,
        }),
        reportInventory({ ...shared, fabric }),
      ]
      try {
        await Promise.all(parts)
      } finally {
        stop.abort(new Error('the provider is stopping'))
        await Promise.allSettled(parts)
        db.close()
      }
    },
  }
}
