import type { VaultId } from '#shared/ids.ts'
import type { Logger } from '#shared/log.ts'
import type { CommandHandlers } from '#shared/messages/commands.ts'
import type { CaptureEngine } from '../capture/port.ts'
import type { RemoteReplicaStore } from '../replica/remote.ts'
import type { ReplicaReports } from '../reports/replica-reports.ts'
import { importSeed } from '../seed/import-seed.ts'
import type { ReplicaServer } from '../stream/target/replica-server.ts'

/** Offline initial replication: written at the source, carried, read at the target. */
export function seedCommands({
  engine,
  store,
  server,
  reports,
  vaultId,
  log,
}: {
  readonly engine: Pick<CaptureEngine, 'exportSeed'>
  readonly store: RemoteReplicaStore
  readonly server: Pick<ReplicaServer, 'exclusively'>
  readonly reports: Pick<ReplicaReports, 'publish'>
  readonly vaultId: VaultId
  readonly log: Logger
}): CommandHandlers<'seed.export' | 'seed.import'> {
  return {
    'seed.export': ({ keyBase64, ...request }) =>
      engine.exportSeed({ ...request, seedKey: Buffer.from(keyBase64, 'base64') }),
    'seed.import': async (request, signal) => {
      const imported = await server.exclusively(request.vmId, () =>
        importSeed({ store, vaultId, log }, request, signal),
      )
      await reports.publish(request.vmId)
      return imported
    },
  }
}
