/**
 * What a synchronization would cost, without sending a block (I7): the same walk down the trees as run-sync.ts. The disk
 * is read and hashed here; of a group that the target has as all zero, only how much data it holds is counted.
 */
import { BLOCK_BYTES } from '#shared/blocks/block.ts'
import { HASH_BYTES, ZERO_HASH } from '#shared/blocks/hash-tree.ts'
import { limits } from '../../limits.ts'
import { readAhead } from './read-ahead.ts'
import { askLeaves, askRanges, begin, type SyncQuery } from './run-sync.ts'

export interface SyncCost {
  /** Allocated bytes of all disks. */
  readonly compareBytes: number
  /** Raw bytes of the blocks that differ and are not zero. */
  readonly differingBytes: number
}

/** null: `isWanted` said no in between. */
export async function estimateSync(run: SyncQuery, isWanted: () => boolean): Promise<SyncCost | null> {
  const { session } = run
  await begin(run)
  let compareBytes = 0
  let differingBytes = 0
  for await (const { disk, first, count, targetNodes } of readAhead(askRanges(run), limits.syncRangesAhead)) {
    if (!isWanted()) return null
    const { diskId } = disk
    const dataOf = (group: number) => disk.groupDataBytes[group] ?? 0
    for (let group = first; group < first + count; group++) compareBytes += dataOf(group)
    for (const group of await session.differingGroups({ diskId, first, targetNodes })) {
      const offset = (group - first) * HASH_BYTES
      const isEmpty = targetNodes.subarray(offset, offset + HASH_BYTES).equals(ZERO_HASH)
      if (isEmpty) differingBytes += dataOf(group)
      else {
        const targetLeaves = await askLeaves(run, disk, group)
        differingBytes += (await session.countDiffering({ diskId, group, targetLeaves })) * BLOCK_BYTES
      }
    }
  }
  return { compareBytes, differingBytes }
}
