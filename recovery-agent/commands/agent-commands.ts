import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { AgentCommandKind, CommandHandlers } from '#shared/messages/commands.ts'
import type { AgentOptions } from '../agent.ts'
import type { CaptureEngine } from '../capture/port.ts'
import type { SourceListener } from '../daemon/listen-for-sources.ts'
import type { Target } from '../daemon/start-target.ts'
import { openHostFiles } from '../hypervisor/open.ts'
import type { RemoteReplicaStore } from '../replica/remote.ts'
import type { Sources } from '../source/sources.ts'
import type { Revocations } from '../state/revocations.ts'
import { replicaCommands } from './replica-commands.ts'
import { seedCommands } from './seed-commands.ts'
import { sourceCommands } from './source-commands.ts'

/** One handler for each command a recovery agent knows. */
export function agentCommandHandlers({
  config,
  identity,
  clock,
  log,
  engine,
  store,
  target,
  sources,
  listener,
  revocations,
}: AgentOptions & {
  readonly engine: Pick<CaptureEngine, 'exportSeed'>
  readonly store: RemoteReplicaStore
  readonly target: Target
  readonly sources: Sources
  readonly listener: Pick<SourceListener, 'dropRevoked'>
  readonly revocations: Revocations
}): CommandHandlers<AgentCommandKind> {
  const { overlayFormat, stoppedDisks } = openHostFiles(config.hypervisor, { dataDir: config.dataDir, clock })
  return {
    ...sourceCommands(sources),
    ...seedCommands({ ...target, engine, store, vaultId: identity.vaultId, log }),
    ...replicaCommands({ ...target, store, sources, overlayFormat, stoppedDisks }),
    'trust.update': async (update) => {
      revocations.replace(update)
      sources.dropRevoked()
      await listener.dropRevoked()
      return {}
    },
    'policy.update': async ({ vmId, policy }) => {
      const isSource = sources.setPolicy(vmId, policy)
      const isTarget = (await store.get(vmId)) !== undefined
      if (isTarget) {
        await store.setPolicy(vmId, policy)
        target.pruner.due(vmId)
      } else if (!isSource) {
        throw new HotsiteError('vm-not-replicated', `this agent neither sends nor receives VM ${vmId}`)
      }
      return {}
    },
  }
}
