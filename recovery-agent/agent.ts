import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { openCommandResultStore } from '#shared/agent-link/command-results.ts'
import { runCoordinatorLink } from '#shared/agent-link/coordinator-link.ts'
import { openReportOutbox, type ReportOutbox } from '#shared/agent-link/report-outbox.ts'
import type { dialChannel } from '#shared/channel/dial.ts'
import type { ChannelLimits } from '#shared/channel/limits.ts'
import type { Clock } from '#shared/clock.ts'
import type { Endpoint } from '#shared/config.ts'
import type { CrashPoint } from '#shared/crash-point.ts'
import { lockDataDir } from '#shared/data-dir.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { Logger } from '#shared/log.ts'
import { type AgentCommandKind, agentCommands, type CommandHandlers } from '#shared/messages/commands.ts'
import type { Rng } from '#shared/rng.ts'
import type { ServerIdentity } from '#shared/trust/identity-store.ts'
import { loadOrMakeTlsIdentity } from '#shared/trust/tls-identity.ts'
import type { CaptureEngine } from './capture/port.ts'
import { agentCommandHandlers } from './commands/agent-commands.ts'
import { type AgentConfig, advertisedEndpoint } from './config.ts'
import { boundAllocator } from './daemon/bound-allocator.ts'
import { listenForSources } from './daemon/listen-for-sources.ts'
import { openEngine } from './daemon/open-engine.ts'
import { openStore } from './daemon/open-store.ts'
import { startSources } from './daemon/start-sources.ts'
import { startTarget } from './daemon/start-target.ts'
import { letHypervisorThrough } from './hypervisor/open.ts'
import type { RemoteReplicaStore } from './replica/remote.ts'
import { runAgentReporter } from './reports/agent-report.ts'
import { createEvents } from './reports/events.ts'
import { openAgentState } from './state/agent-state.ts'
import { openRevocations } from './state/revocations.ts'

export interface AgentOptions {
  readonly config: AgentConfig
  readonly identity: ServerIdentity
  readonly clock: Clock
  readonly rng: Rng
  readonly log: Logger
  readonly crashPoint: CrashPoint
  readonly overrides?: AgentOverrides
}

/** For fault injection and measurement: the real parts, wrapped. */
export interface AgentOverrides {
  /** URL of a module with an `openHypervisor` like that of hypervisor/open.ts; the capture worker imports it. */
  readonly hypervisorModule?: string
  readonly wrapEngine?: (engine: CaptureEngine) => CaptureEngine
  readonly wrapStore?: (store: RemoteReplicaStore) => RemoteReplicaStore
  readonly channelLimits?: Partial<ChannelLimits>
  /** To target agents, in place of a socket. */
  readonly dial?: typeof dialChannel
}

export interface Agent extends AsyncDisposable {
  /** Where peers reach it, and the certificate they pin. */
  readonly listen: Endpoint
  readonly certificatePem: string
  readonly handlers: CommandHandlers<AgentCommandKind>
  readonly reports: ReportOutbox
  readonly store: RemoteReplicaStore
  readonly engine: CaptureEngine
  /** Resolves, with the reason, when the agent cannot go on and has to be started anew. */
  readonly broken: Promise<HotsiteError>
}

/** Everything the agent does starts here and goes on without the coordinator (I12); disposing it is a clean stop. */
export async function startAgent(given: AgentOptions): Promise<Agent> {
  await using stack = new AsyncDisposableStack()
  stack.use(boundAllocator())
  const { config, identity, clock, rng, overrides } = given
  const log = given.log.with({ agent: identity.name })
  const options = { ...given, log }
  stack.use(lockDataDir(config.dataDir))
  mkdirSync(config.replicaDir, { recursive: true, mode: 0o711 })
  letHypervisorThrough(config)
  const stop = new AbortController()
  const { signal } = stop
  const { promise: broken, resolve: onBroken } = Promise.withResolvers<HotsiteError>()

  const state = openAgentState(join(config.dataDir, 'state.db'))
  stack.defer(() => void state.db.close())
  const revocations = openRevocations(state, identity)
  const { isRevoked } = revocations
  const outbox = openReportOutbox(state.db)
  const raise = createEvents({ outbox, clock, log })
  const rawStore = stack.use(await openStore({ dir: config.replicaDir, log }))
  void rawStore.failed.then(onBroken)
  const store = overrides?.wrapStore?.(rawStore) ?? rawStore
  const rawEngine = stack.use(await openEngine(options))
  void rawEngine.failed.then(onBroken)
  const engine = overrides?.wrapEngine?.(rawEngine) ?? rawEngine

  const target = await startTarget({ ...options, store, outbox, raise })
  const tls = await loadOrMakeTlsIdentity(config.dataDir, identity.name)
  const listener = stack.use(
    await listenForSources({
      ...options,
      tls,
      server: target.server,
      raise,
      isRevoked,
      payloadMemory: rawStore.payloadMemory,
    }),
  )
  const sources = stack.use(await startSources({ ...options, engine, state, outbox, raise, isRevoked }))

  const listen = advertisedEndpoint(config, listener.port)
  const { certificatePem } = tls
  const { replicaDir } = config
  const { host } = config.hypervisor
  const handlers = agentCommandHandlers({ ...options, engine, store, target, sources, listener, revocations })
  const self = { host, listen, certificatePem, replicaDir, engine, outbox, clock, log }
  const running = [
    target.pruner.run(signal),
    target.scrubber.run(signal),
    runAgentReporter(self, signal),
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
  const dispose = () => owned.disposeAsync()
  return {
    listen,
    certificatePem,
    handlers,
    reports: outbox,
    store,
    engine,
    broken,
    [Symbol.asyncDispose]: dispose,
  }
}
