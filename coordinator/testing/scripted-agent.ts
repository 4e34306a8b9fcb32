/** Replicas and replications of one site in memory, answered over a real channel. */
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { diskId } from '#shared/ids.ts'
import type { CommandRequest } from '#shared/messages/commands.ts'
import {
  type PointReport,
  type ReplicaReport,
  type ReplicationReport,
  replicationReport,
} from '#shared/messages/reports.ts'
import { type Enrolled, ScriptedServer } from './scripted-server.ts'
import type { SiteNames } from './scripted-site.ts'

/** Of a disk of a thousand blocks. */
const checked = (percent: number) => ({
  diskId: diskId.parse('disk0'),
  checkedBlocks: percent * 10,
  totalBlocks: 1_000,
})

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
  /** What a verification finds, on top of blocks that are as they should be. */
  found = { untrackedBlocks: 0, badBlocks: 0, healedBlocks: 0 }
  damagedPoints: { epoch: number; seq: number }[] = []
  /** Keys of seeds it was given. */
  readonly seedKeys: string[] = []
  seedProblems: string[] = []
  /** Part of its replication report from now on. */
  said: Partial<ReplicationReport> = {}
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
      'replication.approveResync': guard('replication.approveResync', () => {
        this.said = { ...this.said, resync: null }
        return {}
      }),
      'replication.verify': guard('replication.verify', ({ percent }) => {
        const { untrackedBlocks } = this.found
        return { disks: [{ ...checked(percent), untrackedBlocks }] }
      }),
      'replica.verify': guard('replica.verify', ({ percent }) => {
        const { badBlocks, healedBlocks } = this.found
        const { damagedPoints } = this
        return { disks: [{ ...checked(percent), badBlocks, healedBlocks, healedLayers: 0 }], damagedPoints }
      }),
      'seed.export': guard('seed.export', ({ keyBase64 }) => {
        this.seedKeys.push(keyBase64)
        return { files: 2, blocks: 16, bytes: 2 ** 20, capturedAtMs: Date.now() }
      }),
      'seed.import': guard('seed.import', ({ epoch, keyBase64 }) => {
        this.seedKeys.push(keyBase64)
        this.#raise(epoch)
        return { blocks: 16, bytes: 2 ** 20, problems: this.seedProblems }
      }),
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
    const report = replicationReport.parse({
      vmId: this.source.vmId,
      epoch: this.source.epoch,
      activity,
      cause,
      sealedSeq: this.seq,
      ackedSeq: this.seq,
      newestCapturedAtMs: atMs,
      newestAckedCapturedAtMs: atMs,
      bufferedBytes: 0,
      progress: null,
      lastCycle: { seq: this.seq, capturedAtMs: atMs, transferMs: 1, ...idle },
      totals: { changedBytes: 0, sentBytes: 0, cycles: this.seq },
      peerConnected: true,
      error: null,
      ...this.said,
    })
    this.server.report('replication', this.source.vmId, report)
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
    this.reportReplica(vmId)
  }

  reportReplica(vmId: string, changes: Partial<ReplicaReport> = {}): void {
    this.server.report('replica', vmId, {
      vmId: vmId as ReplicationReport['vmId'],
      epoch: this.epoch,
      points: this.points,
      mergeDebtBytes: 0,
      diskBytes: 0,
      proof: [],
      error: null,
      ...changes,
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
