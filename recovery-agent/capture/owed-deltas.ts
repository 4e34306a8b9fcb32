/**
 * Deltas that stay in the buffer for older points the target is still to be brought (buffer/owed.ts). What is damaged of
 * them costs those points and nothing else: the newest state is at the target without them.
 */
import type { CrashPoint } from '#shared/crash-point.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { VmId } from '#shared/ids.ts'
import type { Logger } from '#shared/log.ts'
import { type OwedRange, withOwed } from '../buffer/owed.ts'
import type { VmRow } from '../buffer/vm-rows.ts'
import { type BufferKeeper, isRowDamage } from './buffer-keeper.ts'
import type { BatchRequest, SealedDelta, StoredBatch } from './port.ts'
import type { SealedDeltas } from './sealed-deltas.ts'

interface OwedDeltasOptions {
  readonly keeper: BufferKeeper
  readonly sealed: SealedDeltas
  readonly crashPoint: CrashPoint
  readonly log: Logger
}

export class OwedDeltas {
  readonly #options: OwedDeltasOptions

  constructor(options: OwedDeltasOptions) {
    this.#options = options
  }

  owe(vmId: VmId, range: OwedRange): void {
    const { crashPoint } = this.#options
    const row = this.#row(vmId)
    const isNew = row?.owed.every(({ topSeq }) => topSeq !== range.topSeq)
    // What was acknowledged without being owed is garbage, which does not come back to life.
    if (!row || range.topSeq > row.sealedSeq || (isNew && range.topSeq <= row.ackedSeq)) return
    crashPoint('owe.before-row')
    this.#put(row, range)
    crashPoint('owe.after-row')
  }

  async next(
    vmId: VmId,
    place: { readonly baseSeq: number; readonly seq: number },
  ): Promise<SealedDelta | undefined> {
    const { keeper, sealed } = this.#options
    const row = this.#row(vmId)
    if (!row) return undefined
    try {
      return await sealed.owed(keeper.current.deltas, row, place)
    } catch (error) {
      this.#giveUpDamaged(vmId, place.seq, error)
      return undefined
    }
  }

  async batch(request: BatchRequest): Promise<StoredBatch> {
    const { keeper, sealed } = this.#options
    try {
      return await sealed.batch(keeper.current.deltas, request)
    } catch (error) {
      const { vmId, seq } = request
      this.#giveUpDamaged(vmId, seq, error)
      throw new HotsiteError('delta-unknown', `delta ${seq} of VM ${vmId} is no longer owed`)
    }
  }

  #row(vmId: VmId): VmRow | undefined {
    const row = this.#options.keeper.row(vmId)
    return row?.needsSync === null ? row : undefined
  }

  #put(row: VmRow, range: OwedRange): void {
    const { keeper, sealed } = this.#options
    keeper.current.vms.put({ ...row, owed: withOwed(row.owed, range) })
    sealed.forgetOwed(row.vmId)
  }

  /** Throws everything else. */
  #giveUpDamaged(vmId: VmId, seq: number, error: unknown): void {
    const isGone = error instanceof HotsiteError && error.code === 'delta-unknown'
    if (!isRowDamage(error) && !isGone) throw error
    const row = this.#row(vmId)
    const range = row?.owed.find(({ baseSeq, topSeq }) => baseSeq < seq && seq < topSeq)
    if (!row || !range) return
    this.#options.log.warn('deltas of older points are damaged', { vmId, topSeq: range.topSeq, error })
    this.#put(row, { ...range, points: [] })
  }
}
