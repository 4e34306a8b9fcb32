/** A Blocks message to raw blocks. Everything in it is a claim until checked here. */
import { zstdDecompressSync } from 'node:zlib'
import type { BlockBatch, DeltaHeader } from '#recovery-agent/replica/port.ts'
import { BLOCK_BYTES, blockCountOf } from '#shared/blocks/block.ts'
import type { Bodies } from '#shared/channel/message.ts'
import { limits } from '../../limits.ts'
import { malformed } from './parse.ts'

/** Throws `stream-malformed`. Blocks stored as is share memory with `tail`. */
export function decodeBatch(
  body: Bodies['blocks'],
  tail: Buffer | undefined,
  header: DeltaHeader,
): BlockBatch {
  const disk = header.disks.find(({ diskId }) => diskId === body.diskId)
  if (!disk) throw malformed('blocks', `disk ${JSON.stringify(body.diskId)} is not part of the delta`)
  checkIndexes(body.blockIndexes, body.storedBytes.length, blockCountOf(disk.sizeBytes))
  const payload = tail ?? Buffer.alloc(0)
  const claimed = body.storedBytes.reduce((sum, bytes) => sum + bytes, 0)
  if (claimed !== payload.length) {
    throw malformed('blocks', `${claimed} bytes announced, ${payload.length} came`)
  }
  let offset = 0
  const blocks = body.storedBytes.map((storedBytes) => {
    const stored = payload.subarray(offset, offset + storedBytes)
    offset += storedBytes
    return decodeBlock(stored)
  })
  return { diskId: disk.diskId, batch: body.batch, blockIndexes: body.blockIndexes, blocks }
}

function checkIndexes(indexes: readonly number[], sizes: number, blockCount: number): void {
  if (indexes.length === 0 || indexes.length > limits.batchMaxBlocks || indexes.length !== sizes) {
    throw malformed('blocks', `${indexes.length} block numbers with ${sizes} sizes`)
  }
  let previous = -1
  for (const index of indexes) {
    if (index <= previous || index >= blockCount) {
      throw malformed('blocks', `block ${index} after ${previous} on a disk of ${blockCount} blocks`)
    }
    previous = index
  }
}

function decodeBlock(stored: Buffer): Buffer | null {
  if (stored.length === 0) return null
  if (stored.length === BLOCK_BYTES) return stored
  if (stored.length > BLOCK_BYTES) throw malformed('blocks', `a block of ${stored.length} bytes`)
  let block: Buffer
  try {
    block = zstdDecompressSync(stored, { maxOutputLength: BLOCK_BYTES })
  } catch {
    throw malformed('blocks', 'a compressed block that cannot be decompressed to 64 KiB')
  }
  if (block.length !== BLOCK_BYTES) throw malformed('blocks', `a block of ${block.length} bytes`)
  return block
}
