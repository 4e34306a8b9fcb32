/** Batches: ascending blocks of one disk, the unit of buffering, sending and resuming (DESIGN §5). */
import { HotsiteError } from '../errors/hotsite-error.ts'
import { BLOCK_BYTES } from './block.ts'
import { expandBlock, HELD_BYTES } from './stored-block.ts'

/** 1 MiB raw, zero blocks counted: every receiver may rely on it. */
export const BATCH_BLOCKS = 16
export const BATCH_RAW_BYTES: number = BATCH_BLOCKS * BLOCK_BYTES

export interface PackedBatch {
  readonly blockIndexes: readonly number[]
  readonly storedBytes: readonly number[]
  /** The stored blocks one after the other. */
  readonly payload: Buffer
}

/** Collects stored blocks of one disk in ascending order. Full: take the batch before adding more. */
export class BatchBuilder {
  readonly #memory: () => Buffer | undefined
  readonly #blockIndexes: number[] = []
  readonly #storedBytes: number[] = []
  /** Where the batch at hand is put together. */
  #place: { readonly payload: Buffer; readonly isGiven: boolean } | undefined
  #payloadBytes = 0

  /** `memory` of BATCH_RAW_BYTES for the payload of the next batch; undefined: none is left. */
  constructor(memory: () => Buffer | undefined = () => undefined) {
    this.#memory = memory
  }

  get isEmpty(): boolean {
    return this.#blockIndexes.length === 0
  }

  get isFull(): boolean {
    return this.#blockIndexes.length >= BATCH_BLOCKS
  }

  /** `stored` null: a zero block. The bytes are copied. */
  add(blockIndex: number, stored: Buffer | null): void {
    this.#blockIndexes.push(blockIndex)
    this.#storedBytes.push(stored?.length ?? 0)
    if (!stored) return
    this.#place ??= this.#nextPlace()
    this.#payloadBytes += stored.copy(this.#place.payload, this.#payloadBytes)
  }

  /** The receiver holds it already. */
  addHeld(blockIndex: number): void {
    this.#blockIndexes.push(blockIndex)
    this.#storedBytes.push(HELD_BYTES)
  }

  /** The batch, its payload at the front of the memory given for it, or in memory of its own; the builder is empty then. */
  take(): PackedBatch {
    const payload = this.#takePayload()
    const batch = { blockIndexes: [...this.#blockIndexes], storedBytes: [...this.#storedBytes], payload }
    this.#blockIndexes.length = 0
    this.#storedBytes.length = 0
    this.#payloadBytes = 0
    return batch
  }

  #takePayload(): Buffer {
    if (!this.#place) return Buffer.alloc(0)
    const { payload, isGiven } = this.#place
    const isWhole = this.#payloadBytes === payload.length
    if (isGiven || isWhole) this.#place = undefined
    if (isWhole) return payload
    if (isGiven) return payload.subarray(0, this.#payloadBytes)
    // This place serves the next batch as well.
    const own = Buffer.allocUnsafeSlow(this.#payloadBytes)
    payload.copy(own)
    return own
  }

  #nextPlace(): { readonly payload: Buffer; readonly isGiven: boolean } {
    const given = this.#memory()
    return given
      ? { payload: given, isGiven: true }
      : { payload: Buffer.allocUnsafeSlow(BATCH_RAW_BYTES), isGiven: false }
  }
}

/**
 * The blocks of a batch, 64 KiB each; null for a zero block. Throws `block-malformed` when the parts do not fit
 * together, so that nothing that came over a wire is trusted.
 */
export function unpackBatch(batch: PackedBatch): (Buffer | null)[] {
  const { blockIndexes, storedBytes, payload } = batch
  if (blockIndexes.length !== storedBytes.length || blockIndexes.length > BATCH_BLOCKS)
    throw new HotsiteError(
      'block-malformed',
      `a batch names ${blockIndexes.length} blocks and ${storedBytes.length} sizes`,
    )
  const total = storedBytes.reduce((sum, bytes) => sum + bytes, 0)
  if (total !== payload.length)
    throw new HotsiteError(
      'block-malformed',
      `a batch announces ${total} bytes and carries ${payload.length}`,
    )
  let offset = 0
  let before = -1
  return blockIndexes.map((blockIndex, i) => {
    if (blockIndex <= before)
      throw new HotsiteError('block-malformed', 'the blocks of a batch are not ascending')
    before = blockIndex
    const from = offset
    offset += storedBytes[i] ?? 0
    return expandBlock(payload.subarray(from, offset))
  })
}

/** The same, with 'held' for blocks that the receiver has already. Throws `block-malformed`. */
export function unpackWithHeld(batch: PackedBatch): (Buffer | null | 'held')[] {
  const { blockIndexes, storedBytes, payload } = batch
  const isSent = (i: number) => storedBytes[i] !== HELD_BYTES
  if (storedBytes.every((_, i) => isSent(i))) return unpackBatch(batch)
  const sent = unpackBatch({
    blockIndexes: blockIndexes.filter((_, i) => isSent(i)),
    storedBytes: storedBytes.filter((_, i) => isSent(i)),
    payload,
  })
  let next = 0
  return blockIndexes.map((_, i) => (isSent(i) ? (sent[next++] ?? null) : 'held'))
}
