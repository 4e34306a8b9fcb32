/**
 * The buffer in use, and what becomes of it when what it holds is damaged. A row that does not hold costs one VM a
 * synchronization; a file that does not hold is set aside, and costs every VM one. Nothing damaged is ever used (I7: the
 * cause is `buffer-damaged` or `tree-damaged`, and `found` says what was found).
 */
import { type ErrorDocument, errorDocument, HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { FabricVmId, VmId } from '#shared/ids.ts'
import type { Logger } from '#shared/log.ts'
import type { ResyncCause } from '#shared/messages/commands.ts'
import type { DeltaBuffer } from '../buffer/buffer.ts'
import { isFileDamage } from '../buffer/damaged-file.ts'
import { damagedRow } from '../buffer/row-checksum.ts'
import type { VmRow } from '../buffer/vm-rows.ts'
import type { SourceVm } from './port.ts'

export interface BufferKeeperOptions {
  readonly buffer: DeltaBuffer
  /** Closes the damaged one and answers an empty one; undefined: the buffer is not a file of ours. */
  readonly replaceBuffer: ((damaged: DeltaBuffer, error: unknown) => DeltaBuffer) | undefined
  readonly log: Logger
  /** What reads or writes the buffer that was replaced has to end. */
  readonly onReplaced: () => void
}

/** What was read from the buffer contradicts itself; the file as such is sound. */
export function isRowDamage(error: unknown): error is HotsiteError {
  return error instanceof HotsiteError && (error.code === 'buffer-damaged' || error.code === 'tree-damaged')
}

export class BufferKeeper {
  readonly #options: BufferKeeperOptions
  #buffer: DeltaBuffer
  #isClosed = false
  /** The damaged one is closed, and no other could be opened yet. */
  #isWithout = false
  /** What is known without the buffer: enough to take a VM up again. */
  readonly #sources = new Map<VmId, SourceVm>()
  /** By VM, or whatever a damaged row says its VM is. */
  readonly #found = new Map<string, HotsiteError>()

  constructor(options: BufferKeeperOptions) {
    this.#options = options
    this.#buffer = options.buffer
    for (const { vmId, error } of this.#buffer.vms.removeDamaged()) {
      this.#found.set(vmId, error)
      options.log.warn('a damaged row was removed', { vmId, error })
    }
    for (const { vmId, fabricVmId, epoch } of this.#buffer.vms.all())
      this.remember({ vmId, fabricVmId, epoch })
    if (this.#buffer.damage) options.log.error('buffer.db was replaced', { error: this.#buffer.damage })
  }

  get current(): DeltaBuffer {
    return this.#buffer
  }

  close(): void {
    this.#isClosed = true
    this.#buffer.close()
  }

  remember({ vmId, fabricVmId, epoch }: SourceVm): void {
    this.#sources.set(vmId, { vmId, fabricVmId, epoch })
  }

  /** Also of a VM that this life was not told of: an earlier one died while it was being forgotten. */
  fabricVmIdOf(vmId: VmId): FabricVmId | undefined {
    return this.#sources.get(vmId)?.fabricVmId ?? this.row(vmId)?.fabricVmId
  }

  forget(vmId: VmId): void {
    this.#sources.delete(vmId)
    this.#found.delete(vmId)
  }

  /** undefined: not known here. A row that is damaged or gone is written anew, marked for a synchronization. */
  row(vmId: VmId): VmRow | undefined {
    const source = this.#sources.get(vmId)
    try {
      const row = this.#buffer.vms.get(vmId)
      return row ?? (source && this.#takeUp(source, damagedRow('vms', vmId, 'it is gone')))
    } catch (error) {
      if (!isRowDamage(error)) throw error
      if (source) return this.#takeUp(source, error)
      this.#found.set(vmId, error)
      return undefined
    }
  }

  rows(): readonly VmRow[] {
    for (const vmId of this.#sources.keys()) this.row(vmId)
    return this.#buffer.vms.all()
  }

  /** For a VM without a row. Deltas it left behind may lie there for a while: no new one may bear the number of one of them. */
  cursorsOf(vmId: VmId): Omit<VmRow, 'vmId' | 'fabricVmId' | 'epoch' | 'needsSync'> {
    const sealedSeq = this.#buffer.deltas.lastSeq(vmId)
    return { sealedSeq, ackedSeq: 0, ackedCapturedAtMs: null, ackedLayout: null, owed: [] }
  }

  /** For a VM without a row: a buffer that was lost, or one of which we know why. */
  causeOf(vmId: VmId, cause: ResyncCause): ResyncCause {
    if (cause !== 'buffer-lost') return cause
    const gone = this.#buffer.vms.hasDisks(vmId) ? damagedRow('vms', vmId, 'it is gone') : undefined
    const found = this.#found.get(vmId) ?? this.#buffer.damage ?? gone
    if (!found) return cause
    this.#found.set(vmId, found)
    return 'buffer-damaged'
  }

  /** Nothing of this VM is used any more until a synchronization has run. Answers why. */
  mark(vmId: VmId, error: HotsiteError): ResyncCause {
    const row = this.row(vmId)
    const cause = error.code === 'tree-damaged' ? 'tree-damaged' : 'buffer-damaged'
    // Of a VM that was forgotten, or waits for a synchronization already, rows are on their way out.
    if (!row || row.needsSync !== null) return row?.needsSync ?? cause
    this.#found.set(vmId, error)
    this.#options.log.warn('what is stored of a VM is damaged', { vmId, error })
    this.#buffer.vms.put({ ...row, needsSync: cause })
    return cause
  }

  /** What was found damaged, while the synchronization it led to is due. */
  found(row: VmRow): ErrorDocument | null {
    const found = this.#found.get(row.vmId)
    if (!found) return null
    if (row.needsSync !== null) return errorDocument(found)
    this.#found.delete(row.vmId)
    return null
  }

  /** `work`, and once more when it found that the file is damaged: on a new one then. */
  async guard<T>(work: () => Promise<T>): Promise<T> {
    const buffer = this.#buffer
    try {
      return await work()
    } catch (error) {
      if (!this.replaceIfDamaged(buffer, error)) throw error
      return await work()
    }
  }

  /** Whether `buffer`, in which the error was met, is in use no more. */
  replaceIfDamaged(buffer: DeltaBuffer, error: unknown): boolean {
    if (buffer !== this.#buffer) return true
    const { replaceBuffer, log, onReplaced } = this.#options
    if (!replaceBuffer || this.#isClosed || !(isFileDamage(error) || this.#isWithout)) return false
    this.#isWithout = true
    this.#buffer = replaceBuffer(buffer, error)
    this.#isWithout = false
    const damage = this.#buffer.damage ?? new HotsiteError('buffer-damaged', String(error), { cause: error })
    log.error('buffer.db was replaced', { error: damage })
    for (const source of this.#sources.values()) this.#takeUp(source, damage)
    onReplaced()
    return true
  }

  #takeUp({ vmId, fabricVmId, epoch }: SourceVm, error: HotsiteError): VmRow {
    this.#found.set(vmId, error)
    this.#options.log.warn('a VM is taken up again', { vmId, error })
    const row: VmRow = { ...this.cursorsOf(vmId), vmId, fabricVmId, epoch, needsSync: 'buffer-damaged' }
    this.#buffer.vms.put(row)
    return row
  }
}
