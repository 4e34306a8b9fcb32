import { BATCH_RAW_BYTES, BatchBuilder } from '#shared/blocks/batch.ts'
import { OwnMemory } from '#shared/blocks/own-memory.ts'
import { storeBlock } from '#shared/blocks/stored-block.ts'
import type { DeltaBuffer } from '../buffer/buffer.ts'
import { type BatchRow, type DeltaKey, rowBytes } from '../buffer/delta-rows.ts'
import type { KeptPayload } from './kept-payload.ts'

/** The capture does not fit: nothing of it is kept, and nothing is lost, for the leaves stay as they were (I13). */
export class BufferOverflow extends Error {
  /** The delta alone is larger than the buffer: no draining will ever make room for it. */
  readonly hopeless: boolean

  constructor(hopeless: boolean) {
    super('the delta does not fit into the buffer')
    this.hopeless = hopeless
  }
}

export interface DeltaWriterOptions {
  readonly buffer: DeltaBuffer
  readonly key: DeltaKey
  readonly compress: boolean
  /** Where payload goes while there is room. */
  readonly kept: KeptPayload
  readonly maxBytes: number
  readonly transactionBytes: number
  /** After each transaction. */
  readonly onWritten: (delta: number) => void
}

/** Compresses, packs and writes the blocks of one unsealed delta; disk after disk, ascending within each. */
export class DeltaWriter implements Disposable {
  readonly #options: DeltaWriterOptions
  readonly #batchCounts: number[] = []
  readonly #builder = new BatchBuilder(() => this.#room())
  /** Payload of one transaction that is not kept, batch after batch; the next one begins at the front again. */
  #memory: OwnMemory | undefined
  #memoryBytes = 0
  #rows: BatchRow[] = []
  #rowsBytes = 0
  #disk = 0
  #delta: number | null = null
  #storedBytes = 0
  #fillBytes = 0

  constructor(options: DeltaWriterOptions) {
    this.#options = options
  }

  /** Payload after zero detection and compression. */
  get storedBytes(): number {
    return this.#storedBytes
  }

  batchCount(disk: number): number {
    return this.#batchCounts[disk] ?? 0
  }

  /** `disk` is its position in the header. Throws BufferOverflow, and what SQLite throws. */
  add(disk: number, blockIndex: number, block: Buffer | null): void {
    if (disk !== this.#disk) this.#closeBatch()
    this.#disk = disk
    this.#builder.add(blockIndex, block ? storeBlock(block, this.#options.compress) : null)
    if (this.#builder.isFull) this.#closeBatch()
  }

  /** Everything is in the buffer, unsealed; answers the delta's row. */
  finish(): number {
    this.#closeBatch()
    return this.#rows.length > 0 || this.#delta === null ? this.#write() : this.#delta
  }

  /** What was not written is gone. */
  [Symbol.dispose](): void {
    this.#memory?.[Symbol.dispose]()
  }

  #closeBatch(): void {
    if (this.#builder.isEmpty) return
    const batch = this.batchCount(this.#disk)
    this.#batchCounts[this.#disk] = batch + 1
    const row = this.#options.kept.keep({ ...this.#builder.take(), disk: this.#disk, batch })
    this.#rows.push(row)
    this.#rowsBytes += rowBytes(row)
    if (row.payload.buffer === this.#memory?.bytes.buffer) this.#memoryBytes += row.payload.length
    this.#storedBytes += row.payload.length
    if (this.#rowsBytes >= this.#options.transactionBytes) this.#write()
  }

  #room(): Buffer {
    const { kept, transactionBytes } = this.#options
    const room = kept.room(BATCH_RAW_BYTES)
    if (room) return room
    this.#memory ??= new OwnMemory(transactionBytes + BATCH_RAW_BYTES)
    return this.#memory.bytes.subarray(this.#memoryBytes, this.#memoryBytes + BATCH_RAW_BYTES)
  }

  #write(): number {
    const { buffer, key, maxBytes, onWritten } = this.#options
    if (buffer.deltas.totalBytes() + this.#rowsBytes > maxBytes)
      throw new BufferOverflow(this.#fillBytes + this.#rowsBytes > maxBytes)
    this.#delta = buffer.deltas.append(key, this.#delta, this.#rows)
    this.#fillBytes += this.#rowsBytes
    this.#rows = []
    this.#rowsBytes = 0
    this.#memoryBytes = 0
    onWritten(this.#delta)
    return this.#delta
  }
}
