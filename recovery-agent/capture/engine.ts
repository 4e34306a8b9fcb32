/**
 * The capture engine, in process. Every change of state is one synchronous transaction, so cursors, reads and marks
 * need no lock. What takes long, a copy cycle, runs one at a time for the whole host (it owns the memory bound) and
 * checks at its seal that nothing overtook it.
 */
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { VmId } from '#shared/ids.ts'
import type { ResyncCause } from '#shared/messages/commands.ts'
import type { DeltaRow } from '../buffer/delta-rows.ts'
import type { VmRow } from '../buffer/vm-rows.ts'
import type { SnapshotRequest } from '../hypervisor/port.ts'
import { type CycleOutcome, runCaptureCycle } from './capture-cycle.ts'
import { BufferOverflow } from './delta-writer.ts'
import type { EngineDeps } from './engine-deps.ts'
import { Lane } from './lane.ts'
import { ensureLimits } from './limits.ts'
import { Pace } from './pace.ts'
import type {
  CaptureEngine,
  CaptureOutcome,
  SealedDelta,
  SourceVm,
  SourceVmState,
  StoredBatch,
  SyncSession,
} from './port.ts'
import { SnapshotSync } from './sync-session.ts'

/** After a torn brief snapshot; then the load may be another and a brief one is tried again. */
const SPARED_CYCLES = 20

/** Thaws what an earlier life left (I11), drops what it left half done, then is ready. */
export async function createCaptureEngine(deps: EngineDeps): Promise<CaptureEngine> {
  ensureLimits(deps.limits)
  await deps.hypervisor.recover()
  const engine = new BufferedCapture(deps)
  await engine.collectGarbage()
  return engine
}

class BufferedCapture implements CaptureEngine {
  readonly #deps: EngineDeps
  readonly #captures = new Lane()
  readonly #collections = new Lane()
  readonly #syncs = new Map<VmId, SnapshotSync>()
  /** Copy cycles for which a VM is spared a brief snapshot, because one was torn. */
  readonly #sparedCycles = new Map<VmId, number>()
  #writingDelta: number | null = null

  constructor(deps: EngineDeps) {
    this.#deps = deps
  }

  async add(vm: SourceVm, cause: ResyncCause): Promise<void> {
    const { buffer, log } = this.#deps
    const known = buffer.vms.get(vm.vmId)
    if (known && known.epoch > vm.epoch)
      throw new HotsiteError(
        'epoch-stale',
        `VM ${vm.vmId} is at epoch ${known.epoch} here; epoch ${vm.epoch} is over`,
        { details: { vmId: vm.vmId, epoch: known.epoch } },
      )
    if (known && known.epoch === vm.epoch && known.fabricVmId === vm.fabricVmId) return
    const { vmId, fabricVmId, epoch } = vm
    const cursors = known ?? { sealedSeq: 0, ackedSeq: 0, ackedCapturedAtMs: null }
    buffer.vms.put({ ...cursors, vmId, fabricVmId, epoch, needsSync: cause })
    log.info('source VM added', { vmId: vm.vmId, epoch: vm.epoch, cause })
    await this.collectGarbage()
  }

  async requireSync(vmId: VmId, cause: ResyncCause): Promise<void> {
    const row = this.#known(vmId)
    this.#deps.buffer.vms.put({ ...row, needsSync: cause })
    this.#deps.log.info('synchronization required', { vmId, epoch: row.epoch, cause })
    await this.collectGarbage()
  }

  async forget(vmId: VmId): Promise<void> {
    await this.#syncs.get(vmId)?.[Symbol.asyncDispose]()
    const { buffer } = this.#deps
    this.#sparedCycles.delete(vmId)
    buffer.atomically(() => buffer.vms.remove(vmId))
    await this.collectGarbage()
  }

  async states(): Promise<readonly SourceVmState[]> {
    return this.#deps.buffer.vms.all().map((row) => this.#stateOf(row))
  }

  async state(vmId: VmId): Promise<SourceVmState | undefined> {
    const row = this.#deps.buffer.vms.get(vmId)
    return row && this.#stateOf(row)
  }

  capture(vmId: VmId, options: { compress: boolean }): Promise<CaptureOutcome> {
    return this.#captures.run(async () => {
      const { buffer, limits } = this.#deps
      const vm = this.#known(vmId)
      if (this.#syncs.has(vmId)) throw synchronizationRunning(vmId)
      if (vm.needsSync !== null) return { kind: 'needs-sync', cause: vm.needsSync }
      if (buffer.deltas.totalBytes() >= limits.bufferMaxBytes) return this.#bufferFull()
      try {
        return await this.#captureWithRetry(vm, options.compress)
      } catch (error) {
        if (!(error instanceof BufferOverflow)) throw asDiskFull(error)
        return error.hopeless ? await this.#giveUpDelta(vmId) : this.#bufferFull()
      } finally {
        this.#writingDelta = null
        await this.collectGarbage()
      }
    })
  }

  async nextDelta(vmId: VmId, afterSeq: number): Promise<SealedDelta | undefined> {
    const row = this.#deps.buffer.vms.get(vmId)
    if (!row || row.needsSync !== null) return undefined
    const delta = this.#deps.buffer.deltas.next(vmId, Math.max(afterSeq, row.ackedSeq))
    return delta && sealedDelta(vmId, delta)
  }

  async readBatch(request: Parameters<CaptureEngine['readBatch']>[0]): Promise<StoredBatch> {
    const { vmId, seq, diskId, batch } = request
    const { deltas } = this.#deps.buffer
    const delta = deltas.bySeq(vmId, seq)
    const disk = delta?.header.disks.findIndex((candidate) => candidate.diskId === diskId) ?? -1
    const packed = delta && disk >= 0 ? deltas.batch({ delta: delta.delta, disk, batch }) : undefined
    if (packed) return { batch, ...packed }
    throw new HotsiteError(
      'delta-unknown',
      `batch ${batch} of disk ${diskId} of delta ${seq} is not in the buffer`,
      {
        details: { ...request },
      },
    )
  }

  async acknowledge(vmId: VmId, seq: number): Promise<void> {
    const { buffer, crashPoint, hypervisor, log } = this.#deps
    const row = buffer.vms.get(vmId)
    if (!row) return
    const delta = buffer.deltas.bySeq(vmId, seq)
    if (seq > row.ackedSeq && !delta) {
      log.warn('acknowledgement of an unknown delta ignored', { vmId, seq, sealedSeq: row.sealedSeq })
      return
    }
    if (seq > row.ackedSeq && delta) {
      crashPoint('acknowledge.before-cursor')
      buffer.vms.put({ ...row, ackedSeq: seq, ackedCapturedAtMs: delta.header.capturedAtMs })
    }
    // I2: only now that the cursor is durable may anything it covers go.
    crashPoint('acknowledge.after-cursor')
    if (seq >= row.ackedSeq) await hypervisor.release(row.fabricVmId, seq)
    crashPoint('acknowledge.after-release')
    await this.collectGarbage()
  }

  openSync(vmId: VmId, { newestSeq }: { newestSeq: number }): Promise<SyncSession> {
    return this.#captures.run(async () => {
      const vm = this.#known(vmId)
      if (this.#syncs.has(vmId)) throw synchronizationRunning(vmId)
      const session = await SnapshotSync.open(this.#deps, {
        vm,
        newestSeq,
        onClosed: () => {
          this.#syncs.delete(vmId)
          return this.collectGarbage()
        },
      })
      this.#syncs.set(vmId, session)
      return session
    })
  }

  async usage(): Promise<{ bufferedBytes: number; maxBytes: number }> {
    const { buffer, limits } = this.#deps
    return { bufferedBytes: buffer.deltas.totalBytes(), maxBytes: limits.bufferMaxBytes }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const session of this.#syncs.values()) await session[Symbol.asyncDispose]()
    await this.#captures.run(async () => {})
    await this.#collections.run(async () => this.#deps.buffer.close())
  }

  /** Never fails: what could not be deleted now, on a full disk for example, is garbage the next time too. */
  collectGarbage(): Promise<void> {
    const { buffer, clock, crashPoint, limits, log } = this.#deps
    return this.#collections.run(async () => {
      const pace = new Pace(clock, limits.paceMs)
      const trees = new Set([...this.#syncs.values()].flatMap((session) => session.trees))
      try {
        for (const _ of buffer.garbage.collect({ delta: this.#writingDelta, trees })) {
          crashPoint('garbage.step')
          await pace.pauseIfDue()
        }
      } catch (error) {
        log.warn('garbage collection failed', { error })
      }
    })
  }

  /** A torn snapshot is thrown away and taken once more in the way that may stay open for as long as it needs. */
  async #captureWithRetry(vm: VmRow, compress: boolean): Promise<CaptureOutcome> {
    const onWriting = (delta: number) => {
      this.#writingDelta = delta
    }
    for (const hold of this.#holdsFor(vm.vmId)) {
      const outcome = await runCaptureCycle(this.#deps, { vm, compress, hold, onWriting })
      if (outcome.kind !== 'torn') return this.#outcomeOf(vm.vmId, outcome)
      this.#deps.log.warn('snapshot torn', { vmId: vm.vmId, seq: vm.sealedSeq + 1, hold })
      if (hold === 'brief') this.#sparedCycles.set(vm.vmId, SPARED_CYCLES)
      this.#writingDelta = null
      await this.collectGarbage()
    }
    throw new HotsiteError('snapshot-torn', `no snapshot of VM ${vm.vmId} held until it was read`)
  }

  /** Standing still for the watchdog's whole time, only to be let go unread, would hurt the guest in every cycle (I11). */
  #holdsFor(vmId: VmId): readonly SnapshotRequest['hold'][] {
    const spared = this.#sparedCycles.get(vmId) ?? 0
    if (spared === 0) return ['brief', 'long']
    this.#sparedCycles.set(vmId, spared - 1)
    return ['long', 'long']
  }

  #outcomeOf(vmId: VmId, outcome: Exclude<CycleOutcome, { kind: 'torn' }>): CaptureOutcome {
    const row = this.#known(vmId)
    if (outcome.kind === 'overtaken') return { kind: 'needs-sync', cause: row.needsSync ?? 'requested' }
    const delta = this.#deps.buffer.deltas.bySeq(vmId, outcome.seq)
    if (!delta) throw new Error(`delta ${outcome.seq} of ${vmId} vanished after its seal`)
    return { kind: 'sealed', delta: sealedDelta(vmId, delta) }
  }

  /** No amount of draining makes room for a delta larger than the buffer; a synchronization does not need the buffer. */
  async #giveUpDelta(vmId: VmId): Promise<CaptureOutcome> {
    const cause = 'buffer-overflow'
    const row = this.#known(vmId)
    this.#deps.buffer.vms.put({ ...row, needsSync: row.needsSync ?? cause })
    this.#deps.log.warn('delta larger than the buffer', { vmId, maxBytes: this.#deps.limits.bufferMaxBytes })
    return { kind: 'needs-sync', cause: row.needsSync ?? cause }
  }

  #bufferFull(): CaptureOutcome {
    const { buffer, limits } = this.#deps
    return {
      kind: 'buffer-full',
      bufferedBytes: buffer.deltas.totalBytes(),
      maxBytes: limits.bufferMaxBytes,
    }
  }

  #known(vmId: VmId): VmRow {
    const row = this.#deps.buffer.vms.get(vmId)
    if (!row) throw new HotsiteError('vm-not-replicated', `VM ${vmId} is not replicated from this host`)
    return row
  }

  #stateOf(row: VmRow): SourceVmState {
    return { ...row, bufferedBytes: this.#deps.buffer.deltas.bufferedBytes(row.vmId) }
  }
}

function sealedDelta(vmId: VmId, { seq, epoch, header, manifest }: DeltaRow): SealedDelta {
  return { vmId, epoch, seq, ...header, manifest }
}

function synchronizationRunning(vmId: VmId): HotsiteError {
  return new HotsiteError('synchronization-running', `VM ${vmId} is being synchronized`)
}

/** SQLITE_FULL and ENOSPC name no file; everything else crosses as it is. */
function asDiskFull(error: unknown): unknown {
  if (!(error instanceof Error) || !('code' in error)) return error
  if (error.code !== 'SQLITE_FULL' && error.code !== 'ENOSPC') return error
  return new HotsiteError('disk-full', 'the disk that holds buffer.db is full; the capture was abandoned', {
    cause: error,
  })
}
