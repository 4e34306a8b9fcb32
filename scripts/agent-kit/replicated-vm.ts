import { pathsIn } from '#recovery-agent/replica/names.ts'
import { diskId, fabricVmId, serverId, vmId } from '#shared/ids.ts'
import { type ReplicationPolicy, replicationPolicy } from '#shared/messages/policy.ts'
import type { PointReport } from '#shared/messages/reports.ts'
import { waitUntil } from '../lab-kit/processes.ts'
import type { AckedPoint, AgentPair } from './agent-pair.ts'

export interface VmDisk {
  readonly diskId: string
  readonly sizeBytes: number
}

const firstPointTimeoutMs = 600_000
const epoch = 1

/** One VM replicated by a pair of agents, copied only when asked. */
export class ReplicatedVm {
  readonly #pair: AgentPair
  readonly #vm: string
  readonly #disks: readonly VmDisk[]

  constructor(pair: AgentPair, vm: string, disks: readonly VmDisk[]) {
    this.#pair = pair
    this.#vm = vm
    this.#disks = disks
  }

  /** Until the first point is durable and attested at the target. */
  async start(changes: Partial<ReplicationPolicy> = {}): Promise<void> {
    const { source, target } = this.#pair
    const policy = replicationPolicy.parse({
      copyFrequencySeconds: 900,
      retentionIntervalSeconds: 0,
      ...changes,
    })
    const vm = vmId.parse(this.#vm)
    const disks = this.#disks.map((disk, index) => ({
      diskId: diskId.parse(disk.diskId),
      name: disk.diskId,
      sizeBytes: disk.sizeBytes,
      boot: index === 0,
    }))
    await target.command('replica.prepare', {
      vmId: vm,
      epoch,
      disks,
      sourceServerId: serverId.parse(source.serverId),
      policy,
    })
    await source.command('replication.start', {
      vmId: vm,
      epoch,
      fabricVmId: fabricVmId.parse(this.#vm),
      target: {
        serverId: serverId.parse(target.serverId),
        ...target.listen,
        certificatePem: target.certificatePem,
      },
      ticket: this.#pair.ticketFor(this.#vm, epoch),
      policy,
      cause: 'initial',
      notBeforeMs: null,
    })
    const arrived = await waitUntil(
      async () => (await source.ackedSeq(this.#vm)) > 0,
      firstPointTimeoutMs,
      10,
    )
    if (!arrived) throw new Error(`no first point of ${this.#vm}`)
  }

  /** One copy cycle; answers the seq of its point once that is durable. */
  async copyNow(): Promise<number> {
    const { point } = await this.#pair.source.command('replication.copyNow', { vmId: vmId.parse(this.#vm) })
    return point.seq
  }

  /** At both ends, as the coordinator does it. */
  async setPolicy(changes: Partial<ReplicationPolicy>): Promise<void> {
    const policy = replicationPolicy.parse({
      copyFrequencySeconds: 900,
      retentionIntervalSeconds: 0,
      ...changes,
    })
    for (const agent of [this.#pair.target, this.#pair.source])
      await agent.command('policy.update', { vmId: vmId.parse(this.#vm), policy })
  }

  async pin(seq: number, pinned: boolean): Promise<void> {
    const point = { epoch, seq }
    await this.#pair.target.command('replica.pin', { vmId: vmId.parse(this.#vm), point, pinned })
  }

  /** The newest point the target acknowledged. */
  acked(): Promise<AckedPoint> {
    return this.#pair.source.acked(this.#vm)
  }

  points(): Promise<readonly PointReport[]> {
    return this.#pair.target.points(this.#vm)
  }

  layer(seq: number, disk: string): string {
    return pathsIn(this.#pair.target.dir).layer(vmId.parse(this.#vm), diskId.parse(disk), { epoch, seq })
  }

  async newestLayer(disk: string): Promise<string> {
    return this.layer(await this.#pair.source.ackedSeq(this.#vm), disk)
  }

  async remove(): Promise<void> {
    await this.#pair.source.command('replication.stop', { vmId: vmId.parse(this.#vm) })
    await this.#pair.target.command('replica.remove', { vmId: vmId.parse(this.#vm) })
  }
}
