import { pathsIn } from '#recovery-agent/replica/names.ts'
import { diskId, fabricVmId, serverId, vmId } from '#shared/ids.ts'
import { replicationPolicy } from '#shared/messages/policy.ts'
import { waitUntil } from '../lab-kit/processes.ts'
import type { AgentPair } from './agent-pair.ts'
import { cpuSecondsOf, type Measurement, measure } from './measure.ts'

const policy = replicationPolicy.parse({
  copyFrequencySeconds: 900,
  retentionPoints: 1,
  retentionIntervalSeconds: 0,
})
const timeoutMs = 600_000
const epoch = 1

/** One VM with one disk, replicated by two agents: verification, durable points and encryption on, as always. */
export class HotsiteRun {
  readonly #pair: AgentPair
  readonly #vm: string
  readonly #sizeBytes: number

  constructor(pair: AgentPair, request: { vm: string; sizeBytes: number }) {
    this.#pair = pair
    this.#vm = request.vm
    this.#sizeBytes = request.sizeBytes
  }

  /** From the command to the point that is durable and attested at the target. */
  full(): Promise<Measurement> {
    const { source, target } = this.#pair
    const vm = vmId.parse(this.#vm)
    const disks = [{ diskId: diskId.parse('disk0'), name: 'disk0', sizeBytes: this.#sizeBytes, boot: true }]
    return this.#measured(async () => {
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
      })
      if (!(await waitUntil(async () => (await source.ackedSeq(this.#vm)) > 0, timeoutMs, 10)))
        throw new Error('no first point')
    })
  }

  /** One copy cycle: nobody says what changed. */
  delta(): Promise<Measurement> {
    return this.#measured(async () => {
      await this.#pair.source.command('replication.copyNow', { vmId: vmId.parse(this.#vm) })
    })
  }

  async newestLayer(): Promise<string> {
    const seq = await this.#pair.source.ackedSeq(this.#vm)
    return pathsIn(this.#pair.target.dir).layer(
      vmId.parse(this.#vm),
      diskId.parse('disk0'),
      { epoch, seq },
    )
  }

  async remove(): Promise<void> {
    await this.#pair.source.command('replication.stop', { vmId: vmId.parse(this.#vm) })
    await this.#pair.target.command('replica.remove', { vmId: vmId.parse(this.#vm) })
  }

  #measured(work: () => Promise<void>): Promise<Measurement> {
    const { source, target } = this.#pair
    return measure(
      () => cpuSecondsOf(source.pid) + cpuSecondsOf(target.pid),
      async () => {
        await work()
        return undefined
      },
    )
  }
}
