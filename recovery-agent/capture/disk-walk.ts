/**
 * Which blocks are re-read in a cycle although the tracker called them unchanged. Pure.
 *
 * A walk goes round the disk, so many blocks of data in each cycle, and begins again at its end. Where there is no data
 * nothing is read; that such a block was all zero before, the tree says by itself.
 */
import { blockCountOf } from '#shared/blocks/block.ts'
import type { DiskProof } from '#shared/messages/reports.ts'
import type { DiskRow, DiskWalk } from '../buffer/vm-rows.ts'
import type { BlockRange, NextData } from './ranges.ts'

export const startOfWalk: DiskWalk = { nextBlock: 0, provedAtMs: null }

/**
 * Blocks of data for one cycle, so that the walk is round the disk within `passMs`, as if it were full. 0: no walk.
 * At most `maxBlocks`, so that no VM stands still for it.
 */
export function walkBudgetBlocks(of: {
  readonly blockCount: number
  readonly elapsedMs: number
  readonly passMs: number
  readonly maxBlocks: number
}): number {
  if (of.passMs <= 0 || of.blockCount === 0) return 0
  const due = Math.ceil((of.blockCount * Math.max(0, of.elapsedMs)) / of.passMs)
  return Math.min(of.maxBlocks, Math.max(1, due))
}

export interface WalkStep {
  /** Empty when there is nothing to do. */
  readonly range: BlockRange
  readonly nextBlock: number
  /** The walk was at the end of the disk: every block was settled in this round. */
  readonly isRound: boolean
}

export function planWalk(of: {
  readonly nextBlock: number
  readonly blockCount: number
  readonly budgetBlocks: number
  readonly nextData: NextData
}): WalkStep {
  const { blockCount, budgetBlocks, nextData } = of
  const first = of.nextBlock >= blockCount ? 0 : of.nextBlock
  let at = first
  for (let left = budgetBlocks; left > 0 && at < blockCount; ) {
    const data = nextData(at)
    if (!data || data.first >= blockCount) at = blockCount
    else {
      const from = Math.max(at, data.first)
      at = Math.min(data.end, blockCount, from + left)
      left -= at - from
    }
  }
  const isRound = at >= blockCount && budgetBlocks > 0
  return { range: { first, end: at }, nextBlock: at, isRound }
}

/** Blocks that are re-read together: as many as one reading takes. */
const SAMPLE_BLOCKS = 16

/** So many percent of the disk in pieces that lie evenly over it; `offset`, in [0, 1), says which. */
export function sampleRanges(of: {
  readonly blockCount: number
  readonly percent: number
  readonly offset: number
}): BlockRange[] {
  const { blockCount, percent, offset } = of
  if (percent >= 100) return blockCount > 0 ? [{ first: 0, end: blockCount }] : []
  const pieces = Math.ceil(blockCount / SAMPLE_BLOCKS)
  const wanted = Math.ceil((pieces * percent) / 100)
  const startOf = (i: number) => Math.floor((i * pieces) / wanted)
  return Array.from({ length: wanted }, (_, i) => {
    const piece = startOf(i) + Math.floor(offset * (startOf(i + 1) - startOf(i)))
    return { first: piece * SAMPLE_BLOCKS, end: Math.min(blockCount, (piece + 1) * SAMPLE_BLOCKS) }
  })
}

export function proofOf({ diskId, sizeBytes, walk }: DiskRow): DiskProof {
  const { nextBlock, provedAtMs } = walk ?? startOfWalk
  const blockCount = blockCountOf(sizeBytes)
  const percent = blockCount === 0 ? 100 : Math.min(100, (nextBlock / blockCount) * 100)
  return { diskId, sizeBytes, percent, provedAtMs, badBlocks: 0 }
}
