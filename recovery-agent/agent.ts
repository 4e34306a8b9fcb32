import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { openCommandResultStore } from '#shared/agent-link/command-results.ts'
import { runCoordinatorLink } from '#shared/agent-link/coordinator-link.ts'
import { openReportOutbox, type ReportOutbox } from '#shared/agent-link/report-outbox.ts'
import type { ChannelLimits } from '#shared/channel/limits.ts'
import { listenChannels } from '#shared/channel/listen.ts'
import type { Clock } from '#shared/clock.ts'
import type { Endpoint } from '#shared/config.ts'
import type { CrashPoint } from '#shared/crash-point.ts'
import { lockDataDir } from '#shared/data-dir-lock.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { Logger } from '#shared/log.ts'
import { type AgentCommandKind, agentCommands, type CommandHandlers } from '#shared/messages/commands.ts'
import type { Rng } from '#shared/rng.ts'
import type { ServerIdentity } from '#shared/trust/identity-store.ts'
import { loadOrMakeTlsIdentity } from '#shared/trust/tls-identity.ts'
import { runAgentReporter } from './agent-report.ts'
import type { CaptureEngine } from './capture/port.ts'
import { type AgentConfig, advertisedEndpoint } from './config.ts'
import { createEvents } from './events.ts'
import { openFolderHypervisor } from './hypervisor/folder/folder-hypervisor.ts'
import { openEngine } from './open-engine.ts'
import { openStore } from './open-store.ts'
import { createPruner } from './pruner.ts'
import type { RemoteReplicaStore } from './replica/remote.ts'
import { replicaCommands } from './replica-commands.ts'
import { createReplicaReports } from './replica-reports.ts'
import { Sources } from './source/sources.ts'
import { sourceCommands } from './source-commands.ts'
import { openAgentState } from './state.ts'
import { createPeerLinks } from './stream/source/peer-links.ts'
import { createReplicaServer } from './stream/target/replica-server.ts'

export interface AgentOptions {
  readonly config: AgentConfig
  readonly identity: ServerIdentity
  readonly clock: Clock
  readonly rng: Rng
  readonly log: Logger
  readonly crashPoint: CrashPoint
  readonly overrides?: AgentOverrides
}

/** For fault injection: the real parts, wrapped. */
export interface AgentOverrides {
  readonly wrapEngine?: (engine: CaptureEngine) => CaptureEngine
  readonly wrapStore?: (store: RemoteReplicaStore) => RemoteReplicaStore
  readonly channelLimits?: Partial<ChannelLimits>
}

export interface Agent extends AsyncDisposable {
  /** Where peers reach it, and the certificate they pin. */
  readonly listen: Endpoint
  readonly certificatePem: string
  readonly handlers: CommandHandlers<AgentCommandKind>
  readonly reports: ReportOutbox
  readonly store: RemoteReplicaStore
  readonly engine: CaptureEngine
}

/** Everything the agent does starts here and goes on without the coordinator (I12); disposing it is a clean stop. */
export async function startAgent(options: AgentOptions): Promise<Agent> {
  await using stack = new AsyncDisposableStack()
  const { config, identity, clock, rng, crashPoint, overrides } = options
  const log = options.log.with({ agent: identity.name })
  stack.use(lockDataDir(config.dataDir))
  mkdirSync(config.replicaDir, { recursive: true, mode: 0o750 })
  const stop = new AbortController()
  const { signal } = stop

  const state = openAgentState(join(config.dataDir, 'state.db'))
  stack.defer(() => void state.db.close())
  const outbox = openReportOutbox(state.db)
  const raise = createEvents({ outbox, clock, log })

  const store = stack.use(await openStore({ dir: config.replicaDir, log }))
  const wrappedStore = overrides?.wrapStore?.(store) ?? store
  const rawEngine = stack.use(await openEngine({ ...options, log }))
  const engine = overrides?.wrapEngine?.(rawEngine) ?? rawEngine

  const reports = createReplicaReports({ store: wrappedStore, outbox, clock, log })
  const server = createReplicaServer({
    self: { serverId: identity.serverId, vaultPublicKey: identity.vaultPublicKey },
    store: wrappedStore,
    clock,
    log,
    crashPoint,
    onSealed(vmId) {
      void reports.publish(vmId)
      pruner.due(vmId)
    },
    onDiverged: (vmId, seq, diskIds) =>
      raise({
        severity: 'warning',
        code: 'delta-diverged',
        message: `point ${seq} of VM ${vmId} was refused: the hash of ${diskIds.join(', ')} is not the one signed`,
        vmId,
      }),
  })
  const pruner = createPruner({ store: wrappedStore, server, reports, clock, log })
  for (const { vmId } of await wrappedStore.list()) {
    await reports.publish(vmId)
    pruner.due(vmId)
  }

  const tls = await loadOrMakeTlsIdentity(config.dataDir, identity.name)
  const serving = new Set<Promise<void>>()
  const listener = await listenChannels({
    ...config.listen,
    tls,
    trust: (vaultId) => (vaultId === identity.vaultId ? { ...identity, isRevoked: () => false } : undefined),
    clock,
    rng,
    log,
    limits: overrides?.channelLimits,
    onChannel(channel) {
      if (channel.peer.kind !== 'agent') {
        channel.close({ code: 'channel-wrong-peer', message: 'only agents send disk blocks' })
        return
      }
      const served = server
        .serve(channel)
        .catch((error) => log.error('serving a source failed', { peer: channel.peer.name, error }))
        .finally(() => serving.delete(served))
      serving.add(served)
    },
    onRefused: ({ code, message, remote }) =>
      raise({ severity: 'warning', code, message: `${message} (from ${remote})`, vmId: null }),
  })
  stack.defer(async () => {
    await listener[Symbol.asyncDispose]()
    await Promise.all(serving)
  })

  const links = stack.use(
    createPeerLinks({
      identity,
      clock,
      rng,
      log,
      backoff: config.reconnect,
      limits: overrides?.channelLimits,
    }),
  )
  const sources = stack.use(
    new Sources({
      engine,
      links,
      state,
      clock,
      rng,
      log,
      crashPoint,
      raise,
      publish: (report) =>
        report.activity === 'stopped'
          ? outbox.remove('replication', report.vmId)
          : outbox.set('replication', report.vmId, report),
    }),
  )
  await sources.resumeAll()

  const handlers = commandHandlers({ options, store: wrappedStore, server, reports, pruner, sources })
  const listen = advertisedEndpoint(config, listener.port)
  const { certificatePem } = tls
  const { host } = config.hypervisor
  const { replicaDir } = config
  const running = [
    pruner.run(signal),
    runAgentReporter({ host, listen, certificatePem, replicaDir, engine, outbox, clock, log }, signal),
    runCoordinatorLink({
      identity,
      kinds: Object.keys(agentCommands) as AgentCommandKind[],
      handlers,
      store: openCommandResultStore(state.db),
      reports: outbox,
      clock,
      rng,
      log,
      signal,
      backoff: config.reconnect,
      limits: overrides?.channelLimits,
    }),
  ]
  stack.defer(async () => {
    stop.abort(new HotsiteError('replication-stopped', 'the agent stops'))
    await Promise.all(running)
    log.info('agent stopped')
  })
  log.info('agent started', { listen, replicaDir, dataDir: config.dataDir })
  const owned = stack.move()
  return {
    listen,
    certificatePem,
    handlers,
    reports: outbox,
    store: wrappedStore,
    engine,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  }
}

function commandHandlers({
  options: { config, clock, log },
  store,
  server,
  reports,
  pruner,
  sources,
}: {
  readonly options: AgentOptions
  readonly store: RemoteReplicaStore
  readonly server: ReturnType<typeof createReplicaServer>
  readonly reports: ReturnType<typeof createReplicaReports>
  readonly pruner: ReturnType<typeof createPruner>
  readonly sources: Sources
}): CommandHandlers<AgentCommandKind> {
  // Only asked for paths here; snapshots are the business of the one in the capture worker.
  const hypervisor = openFolderHypervisor({ ...config.hypervisor, dataDir: config.dataDir, clock, log })
  const { overlayFormat, diskPaths } = hypervisor
  return {
    ...sourceCommands(sources),
    ...replicaCommands({ store, server, reports, pruner, sources, overlayFormat, diskPaths }),
    'policy.update': async ({ vmId, policy }) => {
      const isSource = sources.setPolicy(vmId, policy)
      const isTarget = (await store.get(vmId)) !== undefined
      if (isTarget) {
        await store.setPolicy(vmId, policy)
        pruner.due(vmId)
      } else if (!isSource) {
        throw new HotsiteError('vm-not-replicated', `this agent neither sends nor receives VM ${vmId}`)
      }
      return {}
    },
  }
}
