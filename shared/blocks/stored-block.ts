/**
 * How one block is stored and sent (see Blocks in hotsite.proto). `storedBytes` tells the three forms apart:
 *   0        a zero block, no bytes
 *   65536    the block as it is
 *   else     a zstd frame (RFC 8878) of that length, level 1
 *   65537    in a backfill only: no bytes, the receiver holds the block already
 */
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { HotsiteError } from '../errors/hotsite-error.ts'
import { BLOCK_BYTES, isZeroBlock } from './block.ts'

/** In place of a size: the receiver holds the block already, in the layer of the union above. */
export const HELD_BYTES: number = BLOCK_BYTES + 1

/** A frame that saves less than 1/16 is not worth the time to expand it at the other end. */
const WORTHWHILE_BYTES = BLOCK_BYTES - BLOCK_BYTES / 16

/**
 * 4 KiB from four places cost 17 µs to try, a whole random block 80 µs (measured). Four places, because the halves of
 * a block often differ in kind.
 */
const SAMPLE_PIECES = 4
const SAMPLE_PIECE_BYTES = 1024
const SAMPLE_BYTES = SAMPLE_PIECES * SAMPLE_PIECE_BYTES
const WORTHWHILE_SAMPLE_SHARE = 15 / 16

/** One output chunk of a block's size: Node's 16 KiB would be joined from several (a quarter slower, measured). */
const level1 = { chunkSize: BLOCK_BYTES, params: { [constants.ZSTD_c_compressionLevel]: 1 } }
/** A sample that does not compress grows by a few bytes. */
const sampled = { ...level1, chunkSize: 2 * SAMPLE_BYTES }
const oneBlock = { chunkSize: BLOCK_BYTES, maxOutputLength: BLOCK_BYTES }
const sample = Buffer.alloc(SAMPLE_BYTES)

/** The stored form of a block of 64 KiB; shares memory with it when it is stored as it is. Null: a zero block. */
export function storeBlock(block: Buffer, compress: boolean): Buffer | null {
  if (isZeroBlock(block)) return null
  if (!compress || sampledShare(block) > WORTHWHILE_SAMPLE_SHARE) return block
  const frame = zstdCompressSync(block, level1)
  return frame.length <= WORTHWHILE_BYTES ? frame : block
}

/** What compression would leave of the block, from a sample of it: 0 to 1, or a little more. */
export function sampledShare(block: Buffer): number {
  for (let piece = 0; piece < SAMPLE_PIECES; piece++) {
    const from = piece * (BLOCK_BYTES / SAMPLE_PIECES)
    block.copy(sample, piece * SAMPLE_PIECE_BYTES, from, from + SAMPLE_PIECE_BYTES)
  }
  return zstdCompressSync(sample, sampled).length / SAMPLE_BYTES
}

/** The 64 KiB of a stored form; null for a zero block. Throws `block-malformed`; never allocates more than a block. */
export function expandBlock(stored: Buffer): Buffer | null {
  if (stored.length === 0) return null
  if (stored.length === BLOCK_BYTES) return stored
  let block: Buffer
  try {
    block = zstdDecompressSync(stored, oneBlock)
  } catch (error) {
    throw new HotsiteError('block-malformed', `a stored block of ${stored.length} bytes is no zstd frame`, {
      cause: error,
    })
  }
  if (block.length !== BLOCK_BYTES)
    throw new HotsiteError('block-malformed', `a stored block expands to ${block.length} bytes, not 65536`)
  return block
}
