/**
 * Asks the source of a replica for the blocks that rotted here, a batch at a time, until all were asked for. Only what
 * has exactly the leaf of what was lost is taken (replica/healing/repair.ts), so a wrong answer costs nothing but its bytes.
 */
import type { RepairWanted } from '#recovery-agent/replica/port.ts'
import type { RemoteReplicaStore } from '#recovery-agent/replica/remote.ts'
import { BATCH_BLOCKS, unpackBatch } from '#shared/blocks/batch.ts'
import type { VmId } from '#shared/ids.ts'
import { limits } from '../../limits.ts'
import type { RepairAnswer } from './repair-questions.ts'

export interface RepairRound {
  readonly healedBlocks: number
  /** Asked for, and the source no longer has them as they were. */
  readonly goneBlocks: number
  /** no-answer: nobody to ask, or no word in time. enough-asked: more is damaged than one round asks for. */
  readonly end: 'all-asked' | 'enough-asked' | 'no-answer'
}

/** `ask`: undefined when there is nobody to ask, or no answer. */
export async function repairRound(
  vmId: VmId,
  {
    store,
    ask,
  }: {
    readonly store: Pick<RemoteReplicaStore, 'repairWanted' | 'repair'>
    readonly ask: (wanted: RepairWanted) => Promise<RepairAnswer | undefined>
  },
): Promise<RepairRound> {
  let healedBlocks = 0
  let goneBlocks = 0
  let askedBlocks = 0
  while (askedBlocks < limits.repairRoundBlocks) {
    const wanted = await store.repairWanted(vmId, { skip: goneBlocks, maxBlocks: BATCH_BLOCKS })
    if (!wanted) return { healedBlocks, goneBlocks, end: 'all-asked' }
    const answer = await ask(wanted)
    if (!answer) return { healedBlocks, goneBlocks, end: 'no-answer' }
    const healed = await take(store, { vmId, wanted, answer })
    healedBlocks += healed
    askedBlocks += wanted.blockIndexes.length
    // A block that lay in two layers alike was healed twice; one of the others that is gone is then asked for again.
    goneBlocks += Math.max(0, wanted.blockIndexes.length - healed)
  }
  return { healedBlocks, goneBlocks, end: 'enough-asked' }
}

async function take(
  store: Pick<RemoteReplicaStore, 'repair'>,
  { vmId, wanted, answer }: { vmId: VmId; wanted: RepairWanted; answer: RepairAnswer },
): Promise<number> {
  const { blockIndexes, storedBytes } = answer.body
  const unpacked = unpackBatch({ blockIndexes, storedBytes, payload: answer.tail })
  const usable = unpacked.flatMap((block, i) => {
    const blockIndex = blockIndexes[i]
    return block && blockIndex !== undefined && wanted.blockIndexes.includes(blockIndex)
      ? [{ block, blockIndex }]
      : []
  })
  if (usable.length === 0) return 0
  return await store.repair({
    vmId,
    diskId: wanted.diskId,
    blockIndexes: usable.map(({ blockIndex }) => blockIndex),
    blocks: usable.map(({ block }) => block),
  })
}
