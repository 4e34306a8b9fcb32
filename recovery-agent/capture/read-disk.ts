/**
 * What changed on one disk of a snapshot. A tracker names the blocks to compare; beside them some that it called
 * unchanged are compared too (disk-walk.ts). When one of those differs the tracker is wrong: then the whole disk is
 * compared, in the same cycle, so that the point is right all the same.
 */
import { blockCountOf } from '#shared/blocks/block.ts'
import type { DiskId } from '#shared/ids.ts'
import type { DiskWalk } from '../buffer/vm-rows.ts'
import type { SnapshotDisk } from '../hypervisor/port.ts'
import type { DiskTree } from './disk-trees.ts'
import { planWalk, sampleRanges, startOfWalk, walkBudgetBlocks } from './disk-walk.ts'
import type { Pace } from './pace.ts'
import { type BlockRange, blocksIn, contains, dataOf, type NextData, subtract } from './ranges.ts'
import { candidates, scanDisk, wholeDisk } from './scan.ts'

/** What is to be compared although a tracker called it unchanged. */
export type ProofPlan =
  | { readonly kind: 'walk'; readonly passMs: number; readonly elapsedMs: number; readonly maxBlocks: number }
  /** `offset`, in [0, 1): which blocks of those that are as good. */
  | { readonly kind: 'sample'; readonly percent: number; readonly offset: number }

export interface DiskReading {
  readonly changedBlocks: number
  readonly scannedBytes: number
  readonly checked: CheckedDisk
  readonly walk: DiskWalk
}

export interface CheckedDisk {
  readonly diskId: DiskId
  readonly checkedBlocks: number
  readonly totalBlocks: number
  /** Differ although the tracker did not say so. 0 for a disk without a tracker: reading it is its tracker. */
  readonly untrackedBlocks: number
}

export interface ReadDiskRequest {
  readonly disk: SnapshotDisk
  readonly entry: DiskTree
  readonly proof: ProofPlan
  readonly capturedAtMs: number
  readonly scratch: Buffer
  readonly pace: Pace
  /** The tree has the new leaf by then. `block` is only valid during the call; null: zero. */
  readonly onChange: (blockIndex: number, block: Buffer | null) => Promise<void> | undefined
}

export async function readDisk(request: ReadDiskRequest): Promise<DiskReading> {
  const { disk, entry, capturedAtMs, onChange } = request
  const { tree, formerSizeBytes } = entry
  const nextData = dataOf(disk)
  const tracked = candidates(disk, formerSizeBytes)
  const totalBlocks = blockCountOf(disk.sizeBytes)
  const plan = planProof(request, nextData)
  const unchanged = subtract(plan.ranges, tracked)
  const proved = await compareOnly(request, { nextData, ranges: unchanged })
  const ranges = proved.differing > 0 ? wholeDisk(disk) : tracked
  let changedBlocks = 0
  let untrackedBlocks = 0
  const scannedBytes = await scanDisk({
    ...request,
    nextData,
    tree,
    ranges,
    onDifference(blockIndex, leaf, block) {
      tree.setLeaf(blockIndex, leaf)
      changedBlocks++
      if (ranges !== tracked && !contains(tracked, blockIndex)) untrackedBlocks++
      return onChange(blockIndex, block)
    },
  })
  const checkedBlocks = blocksIn(ranges) + (ranges === tracked ? blocksIn(unchanged) : 0)
  const isWhole = checkedBlocks === totalBlocks
  const walk = isWhole ? { nextBlock: totalBlocks, provedAtMs: capturedAtMs } : plan.walk
  return {
    changedBlocks,
    scannedBytes: scannedBytes + proved.scannedBytes,
    checked: { diskId: disk.diskId, checkedBlocks, totalBlocks, untrackedBlocks },
    walk,
  }
}

function planProof(
  { disk, entry, proof, capturedAtMs }: ReadDiskRequest,
  nextData: NextData,
): { ranges: readonly BlockRange[]; walk: DiskWalk } {
  const before = entry.row.walk ?? startOfWalk
  const blockCount = blockCountOf(disk.sizeBytes)
  if (disk.changes.kind === 'scan') return { ranges: [], walk: before }
  if (proof.kind === 'sample') return { ranges: sampleRanges({ ...proof, blockCount }), walk: before }
  const budgetBlocks = walkBudgetBlocks({ ...proof, blockCount })
  if (budgetBlocks === 0) return { ranges: [], walk: before }
  const { range, nextBlock, isRound } = planWalk({ ...before, blockCount, budgetBlocks, nextData })
  const walk = { nextBlock, provedAtMs: isRound ? capturedAtMs : before.provedAtMs }
  return { ranges: [range], walk }
}

/** Changes nothing: what differs is taken over by the scan of the whole disk, in order. */
async function compareOnly(
  { disk, entry, scratch, pace }: ReadDiskRequest,
  { nextData, ranges }: { readonly nextData: NextData; readonly ranges: readonly BlockRange[] },
): Promise<{ differing: number; scannedBytes: number }> {
  let differing = 0
  const onDifference = () => {
    differing++
    return undefined
  }
  const scannedBytes = await scanDisk({
    disk,
    nextData,
    tree: entry.tree,
    ranges,
    scratch,
    pace,
    onDifference,
  })
  return { differing, scannedBytes }
}
