import type { ReportOutbox } from '#shared/agent-link/report-outbox.ts'
import { errorDocument } from '#shared/errors/hotsite-error.ts'
import type { AgentOptions } from '../agent.ts'
import { openHostFiles } from '../hypervisor/open.ts'
import type { RemoteReplicaStore } from '../replica/remote.ts'
import type { RaiseEvent } from '../reports/events.ts'
import { createReplicaReports, type ReplicaReports } from '../reports/replica-reports.ts'
import { createReplicaServer, type ReplicaServer } from '../stream/target/replica-server.ts'
import { createMergeAlarm } from './merge-alarm.ts'
import { createPruner, type Pruner } from './pruner.ts'
import { createScrubber, type Scrubber } from './scrubber.ts'

export interface Target {
  readonly server: ReplicaServer
  readonly reports: ReplicaReports
  readonly pruner: Pruner
  readonly scrubber: Scrubber
}

/** The side of the agent that holds replicas: receiving, pruning, reporting. */
export async function startTarget({
  config,
  identity,
  clock,
  rng,
  log,
  crashPoint,
  store,
  outbox,
  raise,
}: AgentOptions & {
  readonly store: RemoteReplicaStore
  readonly outbox: ReportOutbox
  readonly raise: RaiseEvent
}): Promise<Target> {
  const { anyVmNames } = openHostFiles(config.hypervisor, { dataDir: config.dataDir, clock })
  const reports = createReplicaReports({ store, outbox, clock, log })
  const server = createReplicaServer({
    self: { serverId: identity.serverId, vaultPublicKey: identity.vaultPublicKey },
    store,
    clock,
    log,
    crashPoint,
    onSealed(vmId) {
      void reports.publish(vmId)
      pruner.due(vmId)
    },
    onBackfilled: (vmId) => pruner.due(vmId),
    onOpened: (vmId) => scrubber.sourceOpened(vmId),
    unhealable: (vmId, seq) => scrubber.unhealable(vmId, seq),
    onTreeDamaged: (vmId) => scrubber.treeDamaged(vmId),
    onPace: createMergeAlarm(raise),
    onDiverged: (vmId, seq, diskIds) =>
      raise({
        severity: 'warning',
        code: 'delta-diverged',
        message: `point ${seq} of VM ${vmId} was refused: the hash of ${diskIds.join(', ')} is not the one signed`,
        vmId,
      }),
  })
  const pruner = createPruner({
    store,
    server,
    reports: {
      publish: reports.publish,
      failed(vmId, error) {
        if (error !== null) {
          const { code, message, details } = errorDocument(error)
          const about = `merges/${String(details['dir'] ?? '')}`
          const what = `points of VM ${vmId} that are due to go stay: ${message}`
          raise({ severity: 'warning', code, message: what, vmId, about })
          if (code === 'layer-damaged') scrubber.layerDamaged(vmId)
        }
        return reports.failed(vmId, error)
      },
    },
    anyVmNames,
    clock,
    log,
  })
  const scrubber = createScrubber({
    store,
    server,
    reports,
    onHealed: (vmId) => pruner.due(vmId),
    raise,
    clock,
    rng,
    log,
  })
  for (const { vmId } of await store.list()) {
    await reports.publish(vmId)
    pruner.due(vmId)
  }
  return { server, reports, pruner, scrubber }
}
