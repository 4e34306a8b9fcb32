/** Two sites with one VM, small enough to read: power states and points in memory, answered over real channels. */
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { diskId, fabricVmId } from '#shared/ids.ts'
import type { CommandRequest } from '#shared/messages/commands.ts'
import { replicationPolicy } from '#shared/messages/policy.ts'
import type { InventoryReport, PointReport, ReplicationReport } from '#shared/messages/reports.ts'
import type { NicSpec, VmDescription, VmObservation } from '#shared/messages/vm.ts'
import { type Enrolled, ScriptedServer } from './scripted-server.ts'

interface FabricVm {
  description: VmDescription
  cloud: string | null
  running: boolean
  fenced: boolean
  nics: NicSpec[]
  disks: number
}

export interface SiteNames {
  readonly vmmServer: string
  readonly cloud: string
  readonly host: string
  readonly network: string
}

export const siteA: SiteNames = { vmmServer: 'vmm-a', cloud: 'gold', host: 'host-a', network: 'blue' }
export const siteB: SiteNames = { vmmServer: 'vmm-b', cloud: 'silver', host: 'host-b', network: 'green' }

/** VMs as the fabric of one site has them, behind a scripted provider. */
export class ScriptedProvider {
  readonly vms = new Map<string, FabricVm>()
  readonly server: ScriptedServer
  readonly #names: SiteNames
  /** Kinds that fail with this error, until it is taken out. */
  readonly failures = new Map<string, HotsiteError>()

  constructor(names: SiteNames, enrolled: Enrolled) {
    this.#names = names
    const guard =
      <Request, Result>(kind: string, handle: (request: Request) => Result) =>
      async (request: Request): Promise<Result> => {
        const failure = this.failures.get(kind)
        if (failure) throw failure
        const result = handle(request)
        this.reportInventory()
        return result
      }
    this.server = new ScriptedServer(enrolled, {
      'trust.update': async () => ({}),
      'vm.define': guard('vm.define', (request: CommandRequest<'vm.define'>) => this.#define(request)),
      'vm.start': guard('vm.start', ({ fabricVmId: id }) => this.#start(id)),
      'vm.shutDown': guard('vm.shutDown', ({ fabricVmId: id }) => this.#power(id, false)),
      'vm.stop': guard('vm.stop', ({ fabricVmId: id }) => this.#power(id, false)),
      'vm.observe': guard('vm.observe', ({ fabricVmId: id }) => this.#observe(id)),
      'vm.remove': guard('vm.remove', ({ fabricVmId: id }) => {
        this.vms.delete(id)
        return this.#observe(id)
      }),
      'vm.fence': guard('vm.fence', ({ fabricVmId: id }) => {
        Object.assign(this.#vm(id), { fenced: true, running: false })
        return this.#observe(id)
      }),
      'vm.unfence': guard('vm.unfence', ({ fabricVmId: id }) => {
        this.#vm(id).fenced = false
        return this.#observe(id)
      }),
    })
  }

  addVm(name: string): void {
    const { host, network, cloud } = this.#names
    const nics = [{ name: 'eth0', network }]
    const description: VmDescription = {
      fabricVmId: fabricVmId.parse(`${name}-id`),
      name,
      host,
      generation: 1,
      operatingSystem: 'linux',
      memoryBytes: 2 ** 30,
      cpuCount: 1,
      disks: [{ diskId: diskId.parse('disk0'), name: 'disk0', sizeBytes: 2 ** 20, boot: true }],
      nics,
      classification: null,
      driverSettings: {},
    }
    this.vms.set(description.fabricVmId, { description, cloud, running: true, fenced: false, nics, disks: 1 })
  }

  running(): string[] {
    return [...this.vms.entries()].flatMap(([id, { running }]) => (running ? [id] : []))
  }

  reportInventory(): void {
    const { vmmServer, cloud, host, network } = this.#names
    const report: InventoryReport = {
      vmmServer,
      vmmVersion: '1',
      version: '0',
      clouds: [{ name: cloud, hosts: [host] }],
      hosts: [
        {
          name: host,
          memoryBytes: 2 ** 33,
          cpuCount: 4,
          freeDiskBytes: 2 ** 40,
          networks: [network, 'lab'],
          classifications: [],
        },
      ],
      networks: [network, 'lab'].map((name) => ({ name, logicalNetwork: name, subnets: [] })),
      classifications: [],
      vms: [...this.vms.entries()].map(([id, vm]) => ({
        ...vm.description,
        cloud: vm.cloud,
        observation: this.#observe(id),
      })),
      nowMs: Date.now(),
    }
    this.server.report('inventory', '', report)
  }

  #vm(id: string): FabricVm {
    const vm = this.vms.get(id)
    if (!vm) throw new HotsiteError('vm-unknown', `no VM ${id}`)
    return vm
  }

  #observe(id: string): VmObservation {
    const vm = this.vms.get(id)
    return {
      exists: vm !== undefined,
      power: vm?.running ? 'running' : 'off',
      heartbeatAgeMs: vm?.running ? 10 : null,
      nics: vm?.nics ?? [],
      fenced: vm?.fenced ?? false,
    }
  }

  #define({ fabricVmId: id, description, disks, nics }: CommandRequest<'vm.define'>): VmObservation {
    const fenced = this.vms.get(id)?.fenced ?? false
    this.vms.set(id, { description, cloud: null, running: false, fenced, nics, disks: disks.length })
    return this.#observe(id)
  }

  #start(id: string): VmObservation {
    const vm = this.#vm(id)
    if (vm.fenced) throw new HotsiteError('vm-fenced', `${id} runs elsewhere`)
    if (vm.disks === 0) throw new HotsiteError('disk-missing', `${id} has no disks`)
    vm.running = true
    return this.#observe(id)
  }

  #power(id: string, running: boolean): VmObservation {
    const vm = this.vms.get(id)
    if (vm) vm.running = running
    return this.#observe(id)
  }
}

const idle = { scannedBytes: 0, changedBlocks: 0, changedBytes: 0, sentBytes: 0, freezeMs: 0, captureMs: 0 }

/** Replicas and replications of one host, behind a scripted agent. `peers` are found by server id. */
export class ScriptedAgent {
  readonly server: ScriptedServer
  readonly #names: SiteNames
  readonly #peers: Map<string, ScriptedAgent>
  /** Servers it was told to refuse. */
  refuses: readonly string[] = []
  /** As a target: the epoch and the points of the one VM. */
  epoch = 0
  points: PointReport[] = []
  readonly overlays = new Set<string>()
  /** As a source. */
  source: { vmId: string; epoch: number; target: string; activity: ReplicationReport['activity'] } | undefined
  seq = 0
  readonly failures = new Map<string, HotsiteError>()
  /** False: `replication.start` is answered and no point ever comes. */
  copies = true

  constructor(names: SiteNames, enrolled: Enrolled, peers: Map<string, ScriptedAgent>) {
    this.#names = names
    this.#peers = peers
    peers.set(enrolled.serverId, this)
    const guard =
      <Request, Result>(kind: string, handle: (request: Request) => Result) =>
      async (request: Request): Promise<Result> => {
        const failure = this.failures.get(kind)
        if (failure) throw failure
        return handle(request)
      }
    this.server = new ScriptedServer(enrolled, {
      'trust.update': guard('trust.update', ({ revokedServerIds }: CommandRequest<'trust.update'>) => {
        this.refuses = revokedServerIds
        return {}
      }),
      'replica.prepare': guard('replica.prepare', ({ epoch }) => this.#raise(epoch)),
      'replica.adopt': guard('replica.adopt', ({ epoch }) => {
        this.points = []
        return this.#raise(epoch)
      }),
      'replica.fence': guard('replica.fence', ({ epoch }) => {
        this.#raise(epoch)
        return { newest: this.newest() }
      }),
      'replica.commit': guard('replica.commit', () => ({})),
      'replica.remove': guard('replica.remove', () => {
        this.points = []
        return {}
      }),
      'replica.pin': guard('replica.pin', () => ({})),
      'policy.update': guard('policy.update', () => ({})),
      'overlay.create': guard('overlay.create', (request: CommandRequest<'overlay.create'>) =>
        this.#overlay(request),
      ),
      'overlay.remove': guard('overlay.remove', ({ overlayId }) => {
        this.overlays.delete(overlayId)
        return {}
      }),
      'replication.start': guard('replication.start', ({ vmId, epoch, target }) => {
        this.source = { vmId, epoch, target: target.serverId, activity: 'replicating' }
        if (this.copies) this.copy()
        else this.reportReplication({ activity: 'synchronizing', cause: 'initial' })
        return {}
      }),
      'replication.renewTicket': guard('replication.renewTicket', () => ({})),
      'replication.pause': guard('replication.pause', () => this.#become('paused')),
      'replication.resume': guard('replication.resume', () => this.#become('replicating')),
      'replication.resync': guard('replication.resync', () => ({})),
      'replication.finalDelta': guard('replication.finalDelta', () => {
        this.copy()
        return { point: { epoch: this.source?.epoch ?? 1, seq: this.seq }, capturedAtMs: Date.now() }
      }),
      'replication.stop': guard('replication.stop', () => {
        this.source = undefined
        return {}
      }),
      'replication.fence': guard('replication.fence', () => this.#become('fenced')),
    })
  }

  reportAgent(changes: { nowMs?: number } = {}): void {
    this.server.report('agent', '', {
      host: this.#names.host,
      version: '0',
      listen: { host: '127.0.0.1', port: 1 },
      certificatePem: 'certificate',
      replicaFreeBytes: 2 ** 40,
      bufferBytes: 0,
      bufferMaxBytes: 2 ** 30,
      nowMs: Date.now(),
      ...changes,
    })
  }

  newest(): { epoch: number; seq: number } | null {
    const last = this.points.at(-1)
    return last ? { epoch: last.epoch, seq: last.seq } : null
  }

  /** One copy cycle: a point at the target, and both sides say so. */
  copy(): void {
    const source = this.source
    if (!source) return
    const target = this.#peers.get(source.target)
    this.seq = Math.max(this.seq, target?.points.at(-1)?.seq ?? 0) + 1
    target?.take({ vmId: source.vmId, epoch: source.epoch, seq: this.seq })
    this.reportReplication({ activity: 'replicating', cause: null })
  }

  reportReplication({
    activity,
    cause,
  }: {
    activity: ReplicationReport['activity']
    cause: string | null
  }): void {
    if (!this.source) return
    const atMs = Date.now()
    this.server.report('replication', this.source.vmId, {
      vmId: this.source.vmId as ReplicationReport['vmId'],
      epoch: this.source.epoch,
      activity,
      cause,
      sealedSeq: this.seq,
      ackedSeq: this.seq,
      newestCapturedAtMs: atMs,
      newestAckedCapturedAtMs: atMs,
      bufferedBytes: 0,
      progress: null,
      resync: null,
      proof: [],
      forecast: null,
      slowedByMs: 0,
      lastCycle: { seq: this.seq, capturedAtMs: atMs, transferMs: 1, ...idle },
      totals: { changedBytes: 0, sentBytes: 0, cycles: this.seq },
      peerConnected: true,
      error: null,
    })
  }

  take({ vmId, epoch, seq }: { vmId: string; epoch: number; seq: number }): void {
    if (epoch < this.epoch) return
    const nowMs = Date.now()
    this.points.push({
      epoch,
      seq,
      capturedAtMs: nowMs,
      completedAtMs: nowMs,
      consistency: 'crash',
      attested: true,
      pinned: false,
      overlays: [],
      changedBytes: 0,
      storedBytes: 0,
      roots: [],
      suspect: null,
      damaged: false,
      keptBecause: 'newest',
    })
    this.server.report('replica', vmId, {
      vmId: vmId as ReplicationReport['vmId'],
      epoch: this.epoch,
      points: this.points,
      mergeDebtBytes: 0,
      diskBytes: 0,
      proof: [],
      error: null,
    })
  }

  #raise(epoch: number): Record<string, never> {
    if (epoch < this.epoch)
      throw new HotsiteError('epoch-stale', `epoch ${epoch} is older than ${this.epoch}`)
    this.epoch = epoch
    return {}
  }

  #overlay({ overlayId, point }: CommandRequest<'overlay.create'>) {
    const found = point
      ? this.points.find(({ epoch, seq }) => epoch === point.epoch && seq === point.seq)
      : this.points.at(-1)
    if (!found) throw new HotsiteError('point-unknown', 'no such point')
    this.overlays.add(overlayId)
    const disk = {
      diskId: diskId.parse('disk0'),
      path: `/overlays/${overlayId}`,
      format: 'raw' as const,
      sizeBytes: 2 ** 20,
    }
    return { point: { epoch: found.epoch, seq: found.seq }, capturedAtMs: found.capturedAtMs, disks: [disk] }
  }

  #become(activity: ReplicationReport['activity']): Record<string, never> {
    if (this.source) this.source.activity = activity
    return {}
  }
}

export const testPolicy = replicationPolicy.parse({ copyFrequencySeconds: 30 })
