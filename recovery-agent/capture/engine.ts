/**
 * The capture engine, in process. Every change of state is one synchronous transaction, so cursors, reads and marks
 * need no lock. What takes long, a copy cycle, runs one at a time for the whole host (it owns the memory bound) and
 * checks at its seal that nothing overtook it. A verification, which may take hours and little memory, runs beside the
 * cycles of other VMs; snapshots of one VM are taken one at a time.
 */
import { dirname } from 'node:path'
import { namingFullDisk } from '#shared/errors/disk-full.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { VmId } from '#shared/ids.ts'
import { KeyedLocks } from '#shared/keyed-locks.ts'
import type { ResyncCause } from '#shared/messages/commands.ts'
import type { DeltaRows } from '../buffer/delta-rows.ts'
import { layoutOf, type OwedRange } from '../buffer/owed.ts'
import type { VmRow } from '../buffer/vm-rows.ts'
import { exportSeed, type SeedExport, type SeedExportRequest } from '../seed/export-seed.ts'
import { BufferKeeper, isRowDamage } from './buffer-keeper.ts'
import type { CycleOutcome, ProofWish } from './capture-cycle.ts'
import { BufferOverflow } from './delta-writer.ts'
import { proofOf } from './disk-walk.ts'
import type { EngineDeps } from './engine-deps.ts'
import { forgetInVm } from './forget-in-vm.ts'
import { Lane } from './lane.ts'
import { withinBuffer } from './limits.ts'
import { OwedDeltas } from './owed-deltas.ts'
import { Pace } from './pace.ts'
import type {
  BatchRequest,
  CaptureEngine,
  CaptureOptions,
  CaptureOutcome,
  SealedDelta,
  SourceVm,
  SourceVmState,
  StoredBatch,
  SyncSession,
  VerifyOutcome,
} from './port.ts'
import { type ProvedRequest, readProved } from './read-proved.ts'
import { type HowToCapture, RetriedCapture } from './retried-capture.ts'
import { SealedDeltas, sealedDelta } from './sealed-deltas.ts'
import { SnapshotSync } from './sync-session.ts'

/** Thaws what an earlier life left (I11), drops what it left half done, then is ready. */
export async function createCaptureEngine(deps: EngineDeps): Promise<CaptureEngine> {
  const limits = withinBuffer(deps.limits)
  await deps.hypervisor.recover()
  const engine = new BufferedCapture({ ...deps, limits })
  await engine.collectGarbage()
  return engine
}

class BufferedCapture implements CaptureEngine {
  readonly #given: EngineDeps
  readonly #keeper: BufferKeeper
  readonly #snapshots = new KeyedLocks<VmId>()
  readonly #captures = new Lane()
  readonly #verifications = new Lane()
  readonly #collections = new Lane()
  readonly #syncs = new Map<VmId, SnapshotSync>()
  readonly #sealed: SealedDeltas
  readonly #owed: OwedDeltas
  readonly #cycles = new RetriedCapture()

  constructor(deps: EngineDeps) {
    this.#given = deps
    this.#sealed = new SealedDeltas(new Pace(deps.clock, deps.limits.paceMs), deps.payloadSlots)
    const { buffer, replaceBuffer, log } = deps
    const onReplaced = () => this.#endSyncs()
    this.#keeper = new BufferKeeper({ buffer, replaceBuffer, log, onReplaced })
    const { crashPoint } = deps
    this.#owed = new OwedDeltas({ keeper: this.#keeper, sealed: this.#sealed, crashPoint, log })
  }

  /** With the buffer of this moment: what works for long keeps it, and fails when it is replaced meanwhile. */
  get #deps(): EngineDeps {
    return { ...this.#given, buffer: this.#keeper.current }
  }

  async add(vm: SourceVm, cause: ResyncCause): Promise<void> {
    await this.#keeper.guard(async () => this.#add(vm, cause))
    await this.collectGarbage()
  }

  #add(vm: SourceVm, wanted: ResyncCause): void {
    const { buffer, log } = this.#deps
    const known = this.#keeper.row(vm.vmId)
    if (known && known.epoch > vm.epoch)
      throw new HotsiteError(
        'epoch-stale',
        `VM ${vm.vmId} is at epoch ${known.epoch} here; epoch ${vm.epoch} is over`,
        { details: { vmId: vm.vmId, epoch: known.epoch } },
      )
    this.#keeper.remember(vm)
    if (known && known.epoch === vm.epoch && known.fabricVmId === vm.fabricVmId) return
    const { vmId, fabricVmId, epoch } = vm
    const cause = known ? wanted : this.#keeper.causeOf(vmId, wanted)
    const cursors = known ?? this.#keeper.cursorsOf(vmId)
    buffer.vms.put({ ...cursors, vmId, fabricVmId, epoch, needsSync: cause })
    log.info('source VM added', { vmId, epoch, cause })
  }

  async requireSync(vmId: VmId, cause: ResyncCause): Promise<void> {
    await this.#keeper.guard(async () => {
      const row = this.#known(vmId)
      this.#deps.buffer.vms.put({ ...row, needsSync: cause })
      this.#deps.log.info('synchronization required', { vmId, epoch: row.epoch, cause })
    })
    await this.collectGarbage()
  }

  async forget(vmId: VmId): Promise<void> {
    await this.#syncs.get(vmId)?.[Symbol.asyncDispose]()
    this.#cycles.forget(vmId)
    this.#sealed.forget(vmId)
    this.#sealed.forgetOwed(vmId)
    await forgetInVm(this.#deps, this.#keeper.fabricVmIdOf(vmId))
    this.#keeper.forget(vmId)
    await this.#keeper.guard(async () => {
      const { buffer } = this.#deps
      buffer.atomically(() => buffer.vms.remove(vmId))
    })
    await this.collectGarbage()
  }

  async states(): Promise<readonly SourceVmState[]> {
    return this.#keeper.guard(async () => this.#keeper.rows().map((row) => this.#stateOf(row)))
  }

  async state(vmId: VmId): Promise<SourceVmState | undefined> {
    return this.#keeper.guard(async () => {
      return this.#deps.buffer.reading(() => {
        const row = this.#keeper.row(vmId)
        return row && this.#stateOf(row)
      })
    })
  }

  capture(
    vmId: VmId,
    { compress, proofHours = 0, quiesce = false, writes }: CaptureOptions,
  ): Promise<CaptureOutcome> {
    const proof: ProofWish = { kind: 'walk', passMs: proofHours * 3_600_000 }
    return this.#captureInTurn(this.#captures, vmId, { compress, proof, quiesce, writes })
  }

  async verify(vmId: VmId, { percent }: { percent: number }): Promise<VerifyOutcome> {
    const proof: ProofWish = { kind: 'sample', percent }
    const how = { compress: true, proof, quiesce: false, writes: undefined }
    const outcome = await this.#captureInTurn(this.#verifications, vmId, how)
    if (outcome.kind !== 'sealed') return outcome
    return { kind: 'verified', seq: outcome.delta.seq, disks: outcome.checked }
  }

  #captureInTurn(lane: Lane, vmId: VmId, how: HowToCapture): Promise<CaptureOutcome> {
    return this.#inTurn(lane, vmId, () => this.#captureOnce(vmId, how))
  }

  /** The VM first: whoever waits for one that is verified must not keep others waiting. */
  #inTurn<T>(lane: Lane, vmId: VmId, work: () => Promise<T>): Promise<T> {
    return this.#snapshots.run(vmId, () => lane.run(() => this.#keeper.guard(work)))
  }

  async #captureOnce(vmId: VmId, how: HowToCapture): Promise<CaptureOutcome> {
    const { buffer, limits } = this.#deps
    if (buffer.deltas.totalBytes() >= limits.bufferMaxBytes) await this.collectGarbage()
    const vm = this.#known(vmId)
    if (this.#syncs.has(vmId)) throw synchronizationRunning(vmId)
    if (vm.needsSync !== null) return { kind: 'needs-sync', cause: vm.needsSync }
    if (buffer.deltas.totalBytes() >= limits.bufferMaxBytes) return this.#bufferFull()
    try {
      const onTorn = () => this.collectGarbage()
      const { kept } = this.#sealed
      return this.#outcomeOf(vmId, await this.#cycles.run(this.#deps, { vm, how, kept, onTorn }))
    } catch (error) {
      if (isRowDamage(error)) return { kind: 'needs-sync', cause: this.#keeper.mark(vmId, error) }
      if (!(error instanceof BufferOverflow))
        throw namingFullDisk(error, { what: 'buffer.db', dir: dirname(buffer.path) })
      return error.hopeless ? await this.#giveUpDelta(vmId) : this.#bufferFull()
    } finally {
      await this.collectGarbage()
    }
  }

  async nextDelta(vmId: VmId, afterSeq: number, throughSeq?: number): Promise<SealedDelta | undefined> {
    const read = (rows: DeltaRows, row: VmRow) => this.#sealed.next(rows, row, { afterSeq, throughSeq })
    return this.#readSealed(vmId, read)
  }

  async pendingDeltas(vmId: VmId): Promise<readonly SealedDelta[]> {
    const pending = await this.#readSealed(vmId, async (rows, row) => this.#sealed.pending(rows, row))
    return pending ?? []
  }

  /** undefined: nothing is to be sent, or what was there is damaged and the VM is marked for it. */
  #readSealed<T>(vmId: VmId, read: (rows: DeltaRows, row: VmRow) => Promise<T>): Promise<T | undefined> {
    return this.#keeper.guard(async () => {
      const row = this.#keeper.row(vmId)
      if (!row || row.needsSync !== null) return undefined
      try {
        return await read(this.#deps.buffer.deltas, row)
      } catch (error) {
        await this.#damageFound(vmId, error)
        return undefined
      }
    })
  }

  async readBatch(request: BatchRequest): Promise<StoredBatch> {
    return this.#keeper.guard(async () => {
      if (request.owed) return this.#owed.batch(request)
      try {
        return await this.#sealed.batch(this.#deps.buffer.deltas, request)
      } catch (error) {
        const { vmId, seq } = request
        if (isRowDamage(error) && this.#known(vmId).needsSync !== null)
          throw new HotsiteError('delta-unknown', `delta ${seq} of VM ${vmId} is being deleted`)
        await this.#damageFound(vmId, error)
        throw error
      }
    })
  }

  async acknowledge(vmId: VmId, seq: number): Promise<void> {
    await this.#keeper.guard(async () => {
      try {
        await this.#acknowledge(vmId, seq)
      } catch (error) {
        await this.#damageFound(vmId, error)
      }
    })
    // Not awaited: whoever waits for the point has it. A capture that needs the room waits for it.
    void this.collectGarbage()
  }

  async #acknowledge(vmId: VmId, seq: number): Promise<void> {
    const { buffer, crashPoint, hypervisor, log } = this.#deps
    const row = this.#keeper.row(vmId)
    if (!row) return
    const delta = buffer.deltas.bySeq(vmId, seq)
    if (seq > row.ackedSeq && !delta) {
      log.warn('acknowledgement of an unknown delta ignored', { vmId, seq, sealedSeq: row.sealedSeq })
      return
    }
    if (seq > row.ackedSeq && delta) {
      crashPoint('acknowledge.before-cursor')
      const { capturedAtMs, disks } = delta.header
      const acked = { ackedSeq: seq, ackedCapturedAtMs: capturedAtMs, ackedLayout: layoutOf(disks) }
      buffer.vms.put({ ...row, ...acked })
    }
    this.#sealed.forget(vmId)
    // I2: only now that the cursor is durable may anything it covers go.
    crashPoint('acknowledge.after-cursor')
    if (seq >= row.ackedSeq) await hypervisor.release(row.fabricVmId, seq)
    crashPoint('acknowledge.after-release')
  }

  async owe(vmId: VmId, range: OwedRange): Promise<void> {
    await this.#keeper.guard(async () => this.#owed.owe(vmId, range))
    void this.collectGarbage()
  }

  owedDelta(vmId: VmId, place: { baseSeq: number; seq: number }): Promise<SealedDelta | undefined> {
    return this.#keeper.guard(() => this.#owed.next(vmId, place))
  }

  openSync(vmId: VmId, { newestSeq }: { newestSeq: number }): Promise<SyncSession> {
    return this.#inTurn(this.#captures, vmId, () => this.#openSync(vmId, newestSeq))
  }

  async #openSync(vmId: VmId, newestSeq: number): Promise<SyncSession> {
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
  }

  /** After the copy cycle that runs: two snapshots of a VM do not mix. */
  readProved(vmId: VmId, request: ProvedRequest): Promise<StoredBatch> {
    return this.#inTurn(this.#captures, vmId, () => readProved(this.#deps, this.#known(vmId), request))
  }

  exportSeed(request: SeedExportRequest): Promise<SeedExport> {
    return exportSeed({ ...this.#deps, paceMs: this.#deps.limits.paceMs }, request)
  }

  /** Once what is garbage now has gone. */
  async usage(): Promise<{ bufferedBytes: number; maxBytes: number }> {
    await this.#collections.run(async () => {})
    const { buffer, limits } = this.#deps
    return { bufferedBytes: buffer.deltas.totalBytes(), maxBytes: limits.bufferMaxBytes }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const session of this.#syncs.values()) await session[Symbol.asyncDispose]()
    await Promise.all([this.#captures.run(async () => {}), this.#verifications.run(async () => {})])
    await this.#collections.run(async () => this.#keeper.close())
  }

  /** Never fails: what could not be deleted now, on a full disk for example, is garbage the next time too. */
  collectGarbage(): Promise<void> {
    return this.#collections.run(async () => {
      const { buffer, clock, crashPoint, limits, log } = this.#deps
      const pace = new Pace(clock, limits.paceMs)
      const trees = new Set([...this.#syncs.values()].flatMap((session) => session.trees))
      try {
        for (const _ of buffer.garbage.collect({ deltas: this.#cycles.writing, trees })) {
          crashPoint('garbage.step')
          await pace.pauseIfDue()
        }
      } catch (error) {
        log.warn('garbage collection failed', { error })
        this.#keeper.replaceIfDamaged(buffer, error)
      }
    })
  }

  #outcomeOf(vmId: VmId, outcome: Exclude<CycleOutcome, { kind: 'torn' }>): CaptureOutcome {
    const row = this.#known(vmId)
    if (outcome.kind === 'overtaken') return { kind: 'needs-sync', cause: row.needsSync ?? 'requested' }
    const delta = this.#deps.buffer.deltas.bySeq(vmId, outcome.seq)
    if (!delta) throw new Error(`delta ${outcome.seq} of ${vmId} vanished after its seal`)
    const { findings, checked, notQuiesced } = outcome
    for (const finding of findings) this.#deps.log.warn('the tracker was wrong', { vmId, ...finding })
    return { kind: 'sealed', delta: sealedDelta(vmId, delta), findings, checked, notQuiesced }
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
    const row = this.#keeper.row(vmId)
    if (!row) throw new HotsiteError('vm-not-replicated', `VM ${vmId} is not replicated from this host`)
    return row
  }

  #stateOf(row: VmRow): SourceVmState {
    const { buffer } = this.#deps
    return {
      ...row,
      bufferedBytes: buffer.deltas.bufferedBytes(row.vmId),
      found: this.#keeper.found(row),
      proof: row.needsSync === null ? this.#proofOf(row.vmId) : [],
    }
  }

  #proofOf(vmId: VmId): SourceVmState['proof'] {
    try {
      return this.#deps.buffer.vms.disks(vmId).map(proofOf)
    } catch (error) {
      // The next copy cycle meets it, and knows what to do.
      if (isRowDamage(error)) return []
      throw error
    }
  }

  /** Marks the VM when that is what the error says; throws everything else. */
  async #damageFound(vmId: VmId, error: unknown): Promise<void> {
    if (!isRowDamage(error)) throw error
    this.#keeper.mark(vmId, error)
    await this.collectGarbage()
  }

  #endSyncs(): void {
    for (const session of this.#syncs.values())
      session[Symbol.asyncDispose]().catch((error: unknown) =>
        this.#given.log.warn('a synchronization could not be closed', { error }),
      )
  }
}

function synchronizationRunning(vmId: VmId): HotsiteError {
  return new HotsiteError('synchronization-running', `VM ${vmId} is being synchronized`)
}
