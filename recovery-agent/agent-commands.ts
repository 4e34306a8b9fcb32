import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { AgentCommandKind, CommandHandlers } from '#shared/messages/commands.ts'
import type { AgentOptions } from './agent.ts'
import { openFolderHypervisor } from './hypervisor/folder/folder-hypervisor.ts'
import type { RemoteReplicaStore } from './replica/remote.ts'
import { replicaCommands } from './replica-commands.ts'
import type { Sources } from './source/sources.ts'
import { sourceCommands } from './source-commands.ts'
import type { Target } from './start-target.ts'

/** One handler for each command a recovery agent knows. */
export function agentCommandHandlers({
  config,
  clock,
  log,
  store,
  target,
  sources,
}: AgentOptions & {
  readonly store: RemoteReplicaStore
  readonly target: Target
  readonly sources: Sources
}): CommandHandlers<AgentCommandKind> {
  // Asked for paths only; snapshots are the business of the one in the capture worker.
  const { dataDir } = config
  const { overlayFormat, diskPaths } = openFolderHypervisor({ ...config.hypervisor, dataDir, clock, log })
  return {
    ...sourceCommands(sources),
    ...replicaCommands({ ...target, store, sources, overlayFormat, diskPaths }),
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
