/**
 * One life of an agent: the real engine, sources, store, receivers and pruner, put together as agent.ts does it, over
 * simulated time, line, disk and guests. Killed, it keeps no effect on anything: its clock stands still, its calls
 * come back never, its files refuse, and its databases are copies that nobody reads any more.
 */
import { join } from 'node:path'
import type { AgentOptions } from '#recovery-agent/agent.ts'
import { openBuffer } from '#recovery-agent/buffer/buffer.ts'
import { createCaptureEngine } from '#recovery-agent/capture/engine.ts'
import type { CaptureLimits } from '#recovery-agent/capture/limits.ts'
import type { CaptureEngine } from '#recovery-agent/capture/port.ts'
import { type ReplicaCommandDeps, replicaCommands } from '#recovery-agent/commands/replica-commands.ts'
import { sourceCommands } from '#recovery-agent/commands/source-commands.ts'
import type { AgentConfig } from '#recovery-agent/config.ts'
import { startSources } from '#recovery-agent/daemon/start-sources.ts'
import { startTarget, type Target } from '#recovery-agent/daemon/start-target.ts'
import type { ReplicaStore } from '#recovery-agent/replica/port.ts'
import { openReplicaStore } from '#recovery-agent/replica/store.ts'
import { createEvents } from '#recovery-agent/reports/events.ts'
import type { Sources } from '#recovery-agent/source/sources.ts'
import { openAgentState } from '#recovery-agent/state/agent-state.ts'
import { openReportOutbox } from '#shared/agent-link/report-outbox.ts'
import type { Channel } from '#shared/channel/port.ts'
import type { CrashPoint } from '#shared/crash-point.ts'
import type { Logger } from '#shared/log.ts'
import type { CommandHandlers, CommandRequest } from '#shared/messages/commands.ts'
import type { Rng } from '#shared/rng.ts'
import type { ServerIdentity } from '#shared/trust/identity-store.ts'
import { type PointManifest, signManifest } from '#shared/trust/point-manifest.ts'
import { forgetDatabases } from './databases.ts'
import { remoteEngine, remoteStore, Worker } from './remote.ts'
import { LifeClock, type Scheduler, workingClock } from './scheduler.ts'
import type { SimDisk } from './sim-disk.ts'
import type { SimHypervisor } from './sim-hypervisor.ts'

/** The disks are small: most of what a large one would not keep in memory, they do not either. */
const leavesInMemoryBytes = 100

export interface LifeOptions {
  /** Holds the databases of this life. */
  readonly dir: string
  readonly config: AgentConfig
  readonly identity: ServerIdentity
  readonly scheduler: Scheduler
  readonly skewMs: () => number
  readonly disk: SimDisk
  readonly hypervisor: SimHypervisor
  readonly captureLimits: CaptureLimits
  readonly rng: Rng
  readonly log: Logger
  /** The rolling proof runs; proofs that are asked for do in any case. */
  readonly isProving: boolean
  /** For a call to a worker, one way. */
  readonly callMs: () => number
  readonly stoppedDisks: ReplicaCommandDeps['stoppedDisks']
  readonly dial: NonNullable<NonNullable<AgentOptions['overrides']>['dial']>
  /** Looks on; may throw to end this life there. */
  readonly watch: LifeWatch
}

export interface LifeWatch {
  readonly crashPoint: CrashPoint
  readonly signed: (manifest: PointManifest) => void
  /** Blocks that came off the line, as they reach the store: memory may spoil them. */
  readonly received: (payload: Buffer) => Buffer
  readonly engine: (engine: CaptureEngine) => CaptureEngine
  readonly store: (store: ReplicaStore & Disposable) => ReplicaStore & Disposable
}

type Handlers = ReturnType<typeof sourceCommands> &
  ReturnType<typeof replicaCommands> &
  Pick<CommandHandlers<'policy.update'>, 'policy.update'>

interface Parts {
  readonly engine: CaptureEngine
  readonly store: ReplicaStore & Disposable
  readonly sources: Sources
  readonly target: Target
  readonly handlers: Handlers
}

export class Life {
  readonly dir: string
  readonly clock: LifeClock
  readonly ended: Promise<void>
  readonly #options: LifeOptions
  readonly #end: () => void
  readonly #closing: (() => void)[] = []
  readonly #stop = new AbortController()
  #isAlive = true
  #parts: Parts | undefined

  constructor(options: LifeOptions) {
    this.#options = options
    this.dir = options.dir
    this.clock = new LifeClock(options.scheduler, options.skewMs)
    const { promise, resolve } = Promise.withResolvers<void>()
    this.ended = promise
    this.#end = resolve
  }

  get isAlive(): boolean {
    return this.#isAlive
  }

  /** Undefined until it has opened everything. */
  get parts(): Parts | undefined {
    return this.#isAlive ? this.#parts : undefined
  }

  /** Resolves when the agent serves, or when it was killed on the way. */
  async open(): Promise<void> {
    await Promise.race([this.#open(), this.ended])
  }

  accept(channel: Channel): void {
    this.#parts?.target.server.serve(channel).catch(() => {})
  }

  /** At this very instant. The handles of its databases are closed later, by `close`. */
  kill(): void {
    this.#isAlive = false
    this.clock.stop()
    this.#end()
  }

  close(): void {
    forgetDatabases(this.dir)
    for (const close of this.#closing.toReversed()) {
      try {
        close()
      } catch {
        // Whatever a half-open database says: nobody needs it any more.
      }
    }
  }

  /** An orderly end. */
  async stop(): Promise<void> {
    this.#stop.abort(new Error('the agent stops'))
    await this.#parts?.sources[Symbol.asyncDispose]()
    this.kill()
  }

  async #open(): Promise<void> {
    const { config, identity, rng, log, watch, scheduler, callMs } = this.#options
    const { clock } = this
    const isAlive = () => this.#isAlive
    const crashPoint = watch.crashPoint
    const state = openAgentState(join(this.dir, 'state.db'))
    this.#closing.push(() => void state.db.close())
    const outbox = openReportOutbox(state.db)
    const raise = createEvents({ outbox, clock, log })
    const store = this.#openStore()
    store.recover()
    const engine = watch.engine(await this.#openEngine())
    const worker = () => new Worker({ scheduler, isAlive, delayMs: callMs })
    const far = {
      store: remoteStore(store, worker(), watch.received),
      engine: remoteEngine(engine, worker()),
    }
    const options: AgentOptions = {
      config,
      identity,
      clock,
      rng,
      log,
      crashPoint,
      overrides: { dial: this.#options.dial },
    }
    const target = await startTarget({ ...options, store: far.store, outbox, raise })
    const isRevoked = () => false
    const sources = await startSources({ ...options, engine: far.engine, state, outbox, raise, isRevoked })
    const { stoppedDisks } = this.#options
    const handlers = {
      ...sourceCommands(sources),
      ...replicaCommands({ ...target, store: far.store, sources, overlayFormat: 'raw', stoppedDisks }),
      'policy.update': async ({ vmId, policy }: CommandRequest<'policy.update'>) => {
        sources.setPolicy(vmId, policy)
        if (await far.store.get(vmId)) {
          await far.store.setPolicy(vmId, policy)
          target.pruner.due(vmId)
        }
        return {}
      },
    }
    this.#parts = { engine, store, sources, target, handlers }
    void target.pruner.run(this.#stop.signal)
    // It looks at every replica every few seconds, which is most of what a long history would do.
    if (this.#options.isProving) void target.scrubber.run(this.#stop.signal)
  }

  #openStore(): ReplicaStore & Disposable {
    const { disk, log, watch } = this.#options
    const { crashPoint } = watch
    const files = disk.view(() => this.#isAlive)
    const clock = workingClock(this.clock)
    const options = { dir: this.dir, clock, log, crashPoint, files, leavesInMemoryBytes }
    const store = openReplicaStore(options)
    this.#closing.push(() => store[Symbol.dispose]())
    return watch.store(store)
  }

  #openEngine(): Promise<CaptureEngine> {
    const { identity, hypervisor, captureLimits, rng, log, watch } = this.#options
    const buffer = openBuffer(join(this.dir, 'buffer.db'))
    this.#closing.push(() => buffer.close())
    return createCaptureEngine({
      buffer,
      hypervisor: hypervisor.view(this.clock, () => this.#isAlive),
      vaultId: identity.vaultId,
      serverId: identity.serverId,
      sign: (manifest) => {
        if (this.#isAlive) watch.signed(manifest)
        return signManifest(manifest, identity.keys)
      },
      clock: this.clock,
      rng,
      log,
      limits: captureLimits,
      crashPoint: watch.crashPoint,
    })
  }
}
