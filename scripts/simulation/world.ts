/** Two hosts, the line between them, the VMs and a coordinator that repeats its orders until they are carried out. */
import { createHash } from 'node:crypto'
import { captureCrashPoints } from '#recovery-agent/capture/crash-points.ts'
import { defaultCaptureLimits } from '#recovery-agent/capture/limits.ts'
import { replicaCrashPoints } from '#recovery-agent/replica/crash-points.ts'
import { errorDocument, HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { VmId } from '#shared/ids.ts'
import type { LogFields, Logger } from '#shared/log.ts'
import type { CommandRequest, CommandResultOf, PeerAddress } from '#shared/messages/commands.ts'
import { intBelow, type Rng, seededRng } from '#shared/rng.ts'
import { issueTicket } from '#shared/trust/ticket.ts'
import { Host, Killed, simVault, vaultKeys } from './host.ts'
import type { Life } from './life.ts'
import { expectCause, type ProtectedVm } from './protected-vm.ts'
import { Scheduler, START_MS } from './scheduler.ts'
import { SimLink } from './sim-link.ts'
import { Truth } from './truth.ts'
import { watchedEngine, watchedStore } from './watch.ts'

/** Every named instant at which an agent can be killed, with the side that passes it. */
export const crashNames: readonly string[] = [
  ...captureCrashPoints,
  'source:sealed',
  'source:point-acknowledged',
  'source:base-released',
  'source:sync-committed',
  'source:backfill-promised',
  'source:backfill-acknowledged',
  'source:backfill-released',
  ...replicaCrashPoints,
  'target:before-seal',
  'target:sealed-before-ack',
]

export interface ArmedCrash {
  readonly name: string
  /** Passages until it happens. */
  left: number
  /** The machine loses power, not only the process its life. */
  readonly power: boolean
  readonly downMs: number
}

export interface WorldOptions {
  readonly seed: number
  readonly dir: string
  /** Longest time of a call to a worker, one way; 0: none at all. */
  readonly maxCallMs: number
  readonly bufferMaxBytes: number
  /** Some VM's policy wants a rolling proof. */
  readonly isProving: boolean
  /** Prints what happens, for whoever looks into a seed. */
  readonly trace: ((line: string) => void) | undefined
}

type Handlers = NonNullable<Life['parts']>['handlers']

const TICKET_DAYS = 365

export class World {
  readonly scheduler = new Scheduler()
  readonly truth = new Truth()
  readonly link: SimLink
  readonly vms: ProtectedVm[] = []
  readonly rng: Rng
  readonly west: Host
  readonly east: Host
  readonly faults = new Map<string, number>()
  readonly crashes = new Map<string, number>()
  armed: ArmedCrash[] = []
  /** VMs that are being failed over and turned around. */
  readonly turning = new Set<ProtectedVm>()
  /** Disks may refuse and processes may die: what goes wrong then is no surprise. */
  isTroubled = false
  /** What a damaged row leads to is said at any time after it. */
  hasRottenRows = false
  /** No more faults, no more writes: everything must come right by itself. */
  isPeaceful = false
  /** Orders that are not carried out yet. */
  pending = 0
  readonly #digest = createHash('sha256')
  readonly #trace: WorldOptions['trace']
  readonly #dir: string

  constructor(options: WorldOptions) {
    this.#dir = options.dir
    this.#trace = options.trace
    this.rng = seededRng(options.seed * 7919 + 1)
    this.link = new SimLink(this.scheduler)
    this.west = this.#host(options, 'west', 1)
    this.east = this.#host(options, 'east', 2)
  }

  get hosts(): readonly Host[] {
    return [this.west, this.east]
  }

  readonly note = (text: string): void => {
    // The folder is another one each time, and no part of the history.
    const line = `${(this.scheduler.nowMs / 1000).toFixed(3)} ${text.replaceAll(this.#dir, '')}`
    this.#digest.update(line)
    this.#trace?.(line)
  }

  digest(): string {
    return this.#digest.copy().digest('hex').slice(0, 16)
  }

  fault(kind: string): void {
    this.note(`fault ${kind}`)
    this.faults.set(kind, (this.faults.get(kind) ?? 0) + 1)
  }

  vm(vmId: VmId): ProtectedVm | undefined {
    return this.vms.find((vm) => vm.vmId === vmId)
  }

  /** Some disk or database still refuses, or says what it found. */
  judgeTrouble(): void {
    this.isTroubled = this.hasRottenRows || this.vms.some((vm) => vm.rot !== 'none')
  }

  chance(probability: number): boolean {
    return this.rng.next() < probability
  }

  below(exclusiveMax: number): number {
    return intBelow(this.rng, exclusiveMax)
  }

  /** Off at this instant, on again after `downMs`. */
  kill(
    host: Host,
    { power, downMs, losesBuffer = false }: { power: boolean; downMs: number; losesBuffer?: boolean },
  ): void {
    if (!host.life) return
    const lost = host.kill({ power, losesBuffer, rng: this.rng })
    this.note(
      `${host.name} ${power ? 'without power' : 'killed'}: ${lost.sectors} sectors, ${lost.names} names went back`,
    )
    this.scheduler.after(downMs, () => void this.switchOn(host))
  }

  async switchOn(host: Host): Promise<void> {
    this.note(`${host.name} starts`)
    try {
      await host.start()
    } catch (error) {
      this.truth.violate('start', `${host.name} does not start: ${errorDocument(error).message}`)
    }
  }

  /** Sent again until the host has carried it out, as the coordinator does; sometimes once more (I4). */
  async order<Kind extends keyof Handlers>(
    host: Host,
    kind: Kind,
    request: CommandRequest<Kind>,
  ): Promise<CommandResultOf<Kind> | HotsiteError> {
    for (;;) {
      const { life } = host
      const handler = life?.parts?.handlers[kind]
      if (!life || !handler) {
        await this.scheduler.sleep(1_000)
        continue
      }
      const run = handler as unknown as (
        request: CommandRequest<Kind>,
        signal: AbortSignal,
      ) => Promise<CommandResultOf<Kind>>
      const done = run(request, new AbortController().signal).then(
        (result) => ({ result }),
        (error: unknown) => ({ error }),
      )
      const outcome = await Promise.race([done, life.ended])
      if (!outcome) continue
      if ('result' in outcome) return outcome.result
      const { code, message } = errorDocument(outcome.error)
      this.note(`${host.name} refuses ${kind}: ${code} ${message}`)
      if (code === 'internal') this.truth.violate('engine', `${host.name} fails at ${kind}: ${message}`)
      if (code !== 'disk-full') return new HotsiteError(code, message)
      await this.scheduler.sleep(10_000)
    }
  }

  ticket(vm: ProtectedVm): string {
    const { vmId, epoch, source, target } = vm
    const encoded = issueTicket(
      {
        vaultId: simVault,
        vmId,
        epoch,
        sourceServerId: source.serverId,
        targetServerId: target.serverId,
        issuedAtMs: START_MS,
        expiresAtMs: START_MS + TICKET_DAYS * 86_400_000,
      },
      vaultKeys.secretKey,
    )
    return Buffer.from(encoded).toString('base64')
  }

  addressOf(host: Host): PeerAddress {
    return { serverId: host.serverId, host: host.name, port: 1, certificatePem: '' }
  }

  #host(
    { dir, maxCallMs, bufferMaxBytes, isProving, seed }: WorldOptions,
    name: string,
    number: number,
  ): Host {
    const MiB = 2 ** 20
    const host: Host = new Host({
      name,
      number,
      baseDir: dir,
      link: this.link,
      endOf: (server) => {
        const found = this.hosts.find(({ serverId }) => serverId === server)
        if (!found) throw new Error(`nobody is called ${server}`)
        return found.end
      },
      scheduler: this.scheduler,
      isProving,
      captureLimits: { ...defaultCaptureLimits, bufferMaxBytes, collectBytes: MiB, transactionBytes: MiB },
      rng: seededRng(seed * 31 + number),
      log: this.#logOf(name),
      callMs: () => (maxCallMs === 0 ? 0 : this.rng.next() * maxCallMs),
      watch: {
        crashPoint: (passed) => this.#passed(host, passed),
        signed: (manifest) => {
          const instant = host.hypervisor.signed(manifest)
          if (instant) this.truth.sign(manifest, instant)
        },
        received: (payload) => this.#spoil(host, payload),
        engine: (engine) => watchedEngine(this, engine),
        store: (store) => watchedStore(this, store),
      },
    })
    return host
  }

  /** Bad memory: the bytes are not those that were authenticated. The roots must tell (I3). */
  #spoil(host: Host, payload: Buffer): Buffer {
    if (host.spoiledBatches === 0 || payload.length === 0) return payload
    host.spoiledBatches--
    const spoiled = Buffer.from(payload)
    const at = this.below(payload.length)
    spoiled.writeUInt8(spoiled.readUInt8(at) ^ 1, at)
    for (const vm of this.vms) if (vm.target === host) expectCause(vm, 'diverged')
    this.note('memory spoiled a block')
    return spoiled
  }

  /** Throws when the process dies here. */
  #passed(host: Host, name: string): void {
    if (!host.life) throw new Killed(`passed ${name} after its death`)
    const armed = this.armed.find((crash) => crash.name === name && --crash.left <= 0)
    if (!armed) return
    this.armed = this.armed.filter((crash) => crash !== armed)
    this.crashes.set(name, (this.crashes.get(name) ?? 0) + 1)
    this.fault(armed.power ? 'power-lost-at-crash-point' : 'killed-at-crash-point')
    this.note(`${host.name} dies at ${name}`)
    this.kill(host, armed)
    throw new Killed(`killed at ${name}`)
  }

  #logOf(host: string, bound: LogFields = {}): Logger {
    const line =
      (level: string) =>
      (event: string, fields: LogFields = {}) => {
        if (level !== 'error' && !this.#trace) return
        const { error, ...rest } = { ...bound, ...fields }
        const what = error === undefined ? '' : errorDocument(error).message
        this.#trace?.(
          `        ${(this.scheduler.nowMs / 1000).toFixed(3)} ${host} ${level} ${event} ${JSON.stringify(rest)} ${what}`,
        )
        // The engine's own words for "this must not happen".
        const isAlive = this.hosts.some((one) => one.name === host && one.life)
        if (level === 'error' && isAlive && !this.isTroubled)
          this.truth.violate('engine', `${host}: ${event}: ${what}`)
      }
    return {
      debug: line('debug'),
      info: line('info'),
      warn: line('warn'),
      error: line('error'),
      with: (fields) => this.#logOf(host, { ...bound, ...fields }),
    }
  }
}
