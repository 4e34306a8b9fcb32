import type { AgentPair } from '../agent-kit/agent-pair.ts'
import { ReplicatedVm } from '../agent-kit/replicated-vm.ts'
import { cpuSecondsOf, type Measurement, measure } from './measure.ts'

const disk = 'disk0'

/** One VM with one disk, replicated by two agents: verification, durable points and encryption on, as always. */
export class HotsiteRun {
  readonly #pair: AgentPair
  readonly #vm: ReplicatedVm

  constructor(pair: AgentPair, request: { vm: string; sizeBytes: number }) {
    this.#pair = pair
    this.#vm = new ReplicatedVm(pair, request.vm, [{ diskId: disk, sizeBytes: request.sizeBytes }])
  }

  /** From the command to the point that is durable and attested at the target. */
  full(): Promise<Measurement> {
    return this.#measured(() => this.#vm.start({ retentionPoints: 1 }))
  }

  /** One copy cycle: nobody says what changed. */
  delta(): Promise<Measurement> {
    return this.#measured(() => this.#vm.copyNow())
  }

  newestLayer(): Promise<string> {
    return this.#vm.newestLayer(disk)
  }

  remove(): Promise<void> {
    return this.#vm.remove()
  }

  #measured(work: () => Promise<unknown>): Promise<Measurement> {
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
