import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { VmId } from '#shared/ids.ts'
import type { VmRow } from '../buffer/vm-rows.ts'
import type { SnapshotRequest } from '../hypervisor/port.ts'
import { type CycleOutcome, type CycleRequest, runCaptureCycle } from './capture-cycle.ts'
import type { EngineDeps } from './engine-deps.ts'
import type { NewestPayload } from './kept-payload.ts'

/** After a torn brief snapshot; then the load may be another and a brief one is tried again. */
const SPARED_CYCLES = 20

export type HowToCapture = Pick<CycleRequest, 'compress' | 'proof' | 'quiesce' | 'writes'>

/** Copy cycles with a second try, and what is remembered of each VM for the next one. */
export class RetriedCapture {
  /** Copy cycles for which a VM is spared a brief snapshot, because one was torn. */
  readonly #sparedCycles = new Map<VmId, number>()
  /** When the newest sealed cycle of a VM began. */
  readonly #lastCaptureMs = new Map<VmId, number>()
  readonly #writing = new Map<VmId, number>()

  /** Unsealed deltas that cycles are writing now. */
  get writing(): ReadonlySet<number> {
    return new Set(this.#writing.values())
  }

  forget(vmId: VmId): void {
    this.#sparedCycles.delete(vmId)
    this.#lastCaptureMs.delete(vmId)
  }

  /** A torn snapshot is thrown away and taken once more in the way that may stay open for as long as it needs. */
  async run(
    deps: EngineDeps,
    {
      vm,
      how,
      kept,
      onTorn,
    }: {
      readonly vm: VmRow
      readonly how: HowToCapture
      readonly kept: NewestPayload
      readonly onTorn: () => Promise<void>
    },
  ): Promise<Exclude<CycleOutcome, { kind: 'torn' }>> {
    const { vmId } = vm
    const onWriting = (delta: number) => {
      this.#writing.set(vmId, delta)
    }
    const startedMs = deps.clock.monotonicMs()
    const elapsedMs = startedMs - (this.#lastCaptureMs.get(vmId) ?? startedMs)
    // What is proved on demand may take long.
    const holds = how.proof.kind === 'sample' ? (['long', 'long'] as const) : this.#holdsFor(vmId)
    for (const hold of holds) {
      try {
        const outcome = await runCaptureCycle(deps, { vm, ...how, kept, elapsedMs, hold, onWriting })
        if (outcome.kind === 'sealed') this.#lastCaptureMs.set(vmId, startedMs)
        if (outcome.kind !== 'torn') return outcome
      } finally {
        this.#writing.delete(vmId)
      }
      deps.log.warn('snapshot torn', { vmId, seq: vm.sealedSeq + 1, hold })
      if (hold === 'brief') this.#sparedCycles.set(vmId, SPARED_CYCLES)
      // What it wrote takes room that the second try may need.
      await onTorn()
    }
    throw new HotsiteError('snapshot-torn', `no snapshot of VM ${vmId} held until it was read`)
  }

  /** Standing still for the watchdog's whole time, only to be let go unread, would hurt the guest in every cycle (I11). */
  #holdsFor(vmId: VmId): readonly SnapshotRequest['hold'][] {
    const spared = this.#sparedCycles.get(vmId) ?? 0
    if (spared === 0) return ['brief', 'long']
    this.#sparedCycles.set(vmId, spared - 1)
    return ['long', 'long']
  }
}
