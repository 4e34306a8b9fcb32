/** Batches: ascending blocks of one disk, the unit of buffering, sending and resuming (DESIGN §5). */
import { HotsiteError } from '../errors/hotsite-error.ts'
import { BLOCK_BYTES } from './block.ts'
import { expandBlock } from './stored-block.ts'

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
  readonly #pieces: Buffer[] = []
  readonly #blockIndexes: number[] = []
  readonly #storedBytes: number[] = []
  #payloadBytes = 0

  get isEmpty(): boolean {
    return this.#blockIndexes.length === 0
  }

  get isFull(): boolean {
    return this.#blockIndexes.length >= BATCH_BLOCKS
  }

  /** `stored` null: a zero block. The bytes are copied by `take`, not before. */
  add(blockIndex: number, stored: Buffer | null): void {
    this.#blockIndexes.push(blockIndex)
    this.#storedBytes.push(stored?.length ?? 0)
    if (!stored) return
    this.#pieces.push(stored)
    this.#payloadBytes += stored.length
  }

  /** The batch, in memory of its own; the builder is empty afterwards. */
  take(): PackedBatch {
    const payload = Buffer.allocUnsafeSlow(this.#payloadBytes)
    let offset = 0
    for (const piece of this.#pieces) offset += piece.copy(payload, offset)
    const batch = { blockIndexes: [...this.#blockIndexes], storedBytes: [...this.#storedBytes], payload }
    this.#pieces.length = 0
    this.#blockIndexes.length = 0
    this.#storedBytes.length = 0
    this.#payloadBytes = 0
    return batch
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
