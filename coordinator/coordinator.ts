import { hostname } from 'node:os'
import { join } from 'node:path'
import { type ChannelEvent, type ChannelListener, listenChannels } from '#shared/channel/listen.ts'
import type { Channel } from '#shared/channel/port.ts'
import type { Clock } from '#shared/clock.ts'
import { type CrashPoint, noCrash } from '#shared/crash-point.ts'
import { lockDataDir } from '#shared/data-dir.ts'
import type { Logger } from '#shared/log.ts'
import type { Rng } from '#shared/rng.ts'
import { loadOrMakeTlsIdentity } from '#shared/trust/tls-identity.ts'
import { programVersion } from '#shared/version.ts'
import type { CoordinatorService } from './admin/service.ts'
import { advertisedAddresses, type CoordinatorConfig } from './config.ts'
import { createBus } from './engine/bus.ts'
import { createConnections } from './engine/connections.ts'
import { emit } from './engine/emit.ts'
import type { Engine } from './engine/engine.ts'
import { runJobs } from './engine/job-runner.ts'
import { keepFences } from './engine/keepers/fence-keeper.ts'
import { tidyUp } from './engine/keepers/janitor.ts'
import { runKeeper } from './engine/keepers/run-keeper.ts'
import { keepTickets } from './engine/keepers/ticket-keeper.ts'
import { createService } from './engine/service/service.ts'
import { runSession } from './engine/session.ts'
import { createTrustSource } from './engine/trust-source.ts'
import { reconcileVaultKeys } from './engine/vault-keys.ts'
import { createVaultTrusts, type VaultTrusts } from './engine/vault-trust.ts'
import { type CoordinatorLimits, coordinatorLimitsWith } from './limits.ts'
import { startRegistrationListener } from './registration/listener.ts'
import { openStore } from './store/open.ts'

export interface CoordinatorOptions {
  readonly config: Omit<CoordinatorConfig, 'admin' | 'log'>
  readonly clock: Clock
  readonly rng: Rng
  readonly log: Logger
  readonly crashPoint?: CrashPoint
  readonly limits?: Partial<CoordinatorLimits>
}

export interface Coordinator extends AsyncDisposable {
  readonly service: CoordinatorService
  readonly channelPort: number
  readonly registrationPort: number
  readonly certificatePem: string
}

/**
 * Throws `data-dir-in-use`, `data-version-unknown`, `vault-key-missing`, `channel-cannot-listen`,
 * `registration-port-unavailable`. Disposal lets go of jobs where they are: the next life goes on with them.
 */
export async function startCoordinator(options: CoordinatorOptions): Promise<Coordinator> {
  await using started = new AsyncDisposableStack()
  const { config, clock, rng, log } = options
  started.use(lockDataDir(config.dataDir))
  const store = started.use(openStore(config.dataDir))
  const tls = await loadOrMakeTlsIdentity(join(config.dataDir, 'tls'))
  const trusts = createVaultTrusts({ db: store.db, clock, dataDir: config.dataDir })
  await trusts.reload()
  const engine: Engine = {
    db: store.db,
    clock,
    rng,
    log,
    limits: coordinatorLimitsWith(options.limits),
    bus: createBus(clock),
    connections: createConnections(),
    crashPoint: options.crashPoint ?? noCrash,
    vaultSecretKey: (vaultId) => trusts.key(vaultId).secretKey,
    trustUpdate: (vaultId) => trusts.trustUpdate(vaultId),
  }
  await reconcileVaultKeys(engine, (vaultId) => trusts.key(vaultId))
  // Last started, first stopped: listeners go before the loops they feed, and those before the database.
  started.use(startLoops(engine, trusts))
  const sessions = started.use(openSessions(engine))
  const listener: ChannelListener = started.use(
    await listenChannels({
      ...config.listen,
      tls,
      trust: (vaultId) => trusts.trustOf(vaultId),
      clock,
      rng,
      log,
      onChannel: (channel) => sessions.accept(channel),
      onRefused: (event) => sessions.noteRefusal(event),
    }),
  )
  const bound = {
    channelPort: listener.port,
    registrationPort: config.registration.port,
    hostname: hostname(),
  }
  const registration = started.use(
    await startRegistrationListener({
      ...config.registration,
      tls,
      channelAddresses: advertisedAddresses(fullConfig(config), bound).channelAddresses,
      vaults: createTrustSource(engine, trusts),
      clock,
      log,
    }),
  )
  const registrationPort = registration.address.port
  const service = createService({
    engine,
    trusts,
    dataDir: config.dataDir,
    version: programVersion,
    addresses: () => ({
      ...advertisedAddresses(fullConfig(config), { ...bound, registrationPort }),
      coordinatorCertificatePem: tls.certificatePem,
    }),
  })
  const owned = started.move()
  return {
    service,
    channelPort: listener.port,
    registrationPort,
    certificatePem: tls.certificatePem,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  }
}

const fullConfig = (config: CoordinatorOptions['config']): CoordinatorConfig => ({
  ...config,
  admin: { socket: '' },
  log: { level: 'info' },
})

/** One loop per concern; each is awaited when the coordinator stops. */
function startLoops(engine: Engine, trusts: VaultTrusts): AsyncDisposable {
  const stop = new AbortController()
  const { keeperMs, janitorMs } = engine.limits
  const housekeeping = async () => {
    await tidyUp(engine)
    await trusts.reload()
  }
  const loops = Promise.all([
    runJobs(engine, stop.signal),
    runKeeper(engine, { name: 'fences', round: keepFences, everyMs: keeperMs, onBus: true }, stop.signal),
    runKeeper(engine, { name: 'tickets', round: keepTickets, everyMs: keeperMs, onBus: false }, stop.signal),
    runKeeper(
      engine,
      { name: 'janitor', round: housekeeping, everyMs: janitorMs, onBus: false },
      stop.signal,
    ),
  ])
  return {
    async [Symbol.asyncDispose]() {
      stop.abort()
      await loops
    },
  }
}

interface Sessions extends AsyncDisposable {
  accept(channel: Channel): void
  noteRefusal(event: ChannelEvent): void
}

function openSessions(engine: Engine): Sessions {
  const stop = new AbortController()
  const open = new Set<Promise<void>>()
  const track = (work: Promise<void>) => {
    const tracked = work
      .catch((error: unknown) => engine.log.error('session ended badly', { error }))
      .finally(() => open.delete(tracked))
    open.add(tracked)
  }
  return {
    accept: (channel) => track(runSession(engine, channel, stop.signal)),
    noteRefusal({ code, message, vaultId, serverId }) {
      // Strangers have proved nothing, so they belong to no vault and could fill the event list: they stay in the log.
      if (!vaultId) return
      // Two machines with one identity replace each other's connection every second, for as long as both run.
      const period = Math.floor(engine.clock.now() / engine.limits.refusalRepeatMs)
      const eventId = `refusal/${code}/${serverId ?? 'unknown'}/${period}`
      const notice = {
        severity: 'warning',
        code,
        message,
        eventId,
        ...(serverId ? { serverId } : {}),
      } as const
      track(emit(engine, engine.db, vaultId, notice))
    },
    async [Symbol.asyncDispose]() {
      stop.abort()
      await Promise.all(open)
    },
  }
}
