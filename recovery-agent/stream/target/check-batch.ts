/** Whether a Blocks message fits its delta. Its blocks are expanded later, by the thread that writes them. */
import type { DeltaHeader } from '#recovery-agent/replica/port.ts'
import type { StoredBlocks } from '#recovery-agent/replica/remote.ts'
import { BLOCK_BYTES, blockCountOf } from '#shared/blocks/block.ts'
import { HELD_BYTES } from '#shared/blocks/stored-block.ts'
import type { Bodies } from '#shared/channel/message.ts'
import { limits } from '../../limits.ts'
import { malformed } from './parse.ts'

/** Throws `stream-malformed`. */
export function checkBatch(
  body: Bodies['blocks'],
  tail: Buffer | undefined,
  header: DeltaHeader,
): StoredBlocks {
  const disk = header.disks.find(({ diskId }) => diskId === body.diskId)
  if (!disk) throw malformed('blocks', `disk ${JSON.stringify(body.diskId)} is not part of the delta`)
  const { batch, blockIndexes, storedBytes } = body
  checkIndexes(blockIndexes, storedBytes.length, blockCountOf(disk.sizeBytes))
  const sent = header.kind === 'backfill' ? storedBytes.filter((bytes) => bytes !== HELD_BYTES) : storedBytes
  const payload = tail ?? Buffer.alloc(0)
  const claimed = sent.reduce((sum, bytes) => sum + bytes, 0)
  if (sent.some((bytes) => bytes > BLOCK_BYTES)) throw malformed('blocks', 'a block of more than 64 KiB')
  if (claimed !== payload.length) {
    throw malformed('blocks', `${claimed} bytes announced, ${payload.length} came`)
  }
  return { diskId: disk.diskId, batch, blockIndexes, storedBytes, payload }
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
