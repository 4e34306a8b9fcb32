/**
 * Compares blocks of one disk of a snapshot with the stored leaves.
 *
 * What is allocated is read and hashed; what is not reads as zeros, so there only blocks whose stored leaf is not zero
 * have changed, and the stored tree names them without touching the disk. An empty region costs nothing either way.
 */
import { BLOCK_BYTES, blockCountOf } from '#shared/blocks/block.ts'
import { GROUP_CHILDREN, leafOf, ZERO_HASH } from '#shared/blocks/hash-tree.ts'
import type { SnapshotDisk } from '../hypervisor/port.ts'
import type { PendingTree } from '../tree/leaf-store.ts'
import { READ_BYTES } from './limits.ts'
import type { Pace } from './pace.ts'
import { type BlockRange, cutByData, type NextData, normalize, rangesOf } from './ranges.ts'

export interface ScanRequest {
  readonly disk: Pick<SnapshotDisk, 'read'>
  readonly nextData: NextData
  readonly tree: PendingTree
  /** Ascending, disjoint. */
  readonly ranges: readonly BlockRange[]
  /** READ_BYTES long, reused. */
  readonly scratch: Buffer
  readonly pace: Pace
  /**
   * A block that differs from its stored leaf, ascending. `block` is only valid during the call; null: it is zero now.
   * A promise is awaited.
   */
  readonly onDifference: (blockIndex: number, leaf: Buffer, block: Buffer | null) => Promise<void> | undefined
}

/** Answers the bytes read. */
export async function scanDisk(request: ScanRequest): Promise<number> {
  let scannedBytes = 0
  for (const piece of cutByData(request.ranges, request.nextData)) {
    if (piece.allocated) scannedBytes += await scanData(piece, request)
    else await scanHole(piece, request)
  }
  return scannedBytes
}

/**
 * The blocks that may have changed. A tracker knows nothing of what a changed size does: the block at the old end and
 * everything above it count as changed. `formerSizeBytes`: at the stored point; null: the disk is new.
 */
export function candidates(
  disk: Pick<SnapshotDisk, 'changes' | 'sizeBytes'>,
  formerSizeBytes: number | null,
): BlockRange[] {
  if (disk.changes.kind === 'scan' || formerSizeBytes === null) return wholeDisk(disk)
  const tracked = rangesOf(disk.changes.extents, disk.sizeBytes)
  if (formerSizeBytes === disk.sizeBytes) return tracked
  const seam = Math.floor(Math.min(formerSizeBytes, disk.sizeBytes) / BLOCK_BYTES)
  return normalize([...tracked, { first: seam, end: blockCountOf(disk.sizeBytes) }])
}

export function wholeDisk({ sizeBytes }: { readonly sizeBytes: number }): BlockRange[] {
  return normalize([{ first: 0, end: blockCountOf(sizeBytes) }])
}

async function scanData(range: BlockRange, request: ScanRequest): Promise<number> {
  const { disk, tree, scratch, pace, onDifference } = request
  const blocksPerRead = READ_BYTES / BLOCK_BYTES
  for (let first = range.first; first < range.end; first += blocksPerRead) {
    const count = Math.min(blocksPerRead, range.end - first)
    disk.read(scratch.subarray(0, count * BLOCK_BYTES), first * BLOCK_BYTES)
    for (let i = 0; i < count; i++) {
      const block = scratch.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES)
      const leaf = leafOf(block)
      if (leaf.equals(tree.leaf(first + i))) continue
      const wait = onDifference(first + i, leaf, leaf === ZERO_HASH ? null : block)
      if (wait) await wait
    }
    const wait = pace.pauseIfDue()
    if (wait) await wait
  }
  return (range.end - range.first) * BLOCK_BYTES
}

/** Walks the parts of the stored tree that are not zero, so an empty region of any size costs one look. */
async function scanHole(range: BlockRange, request: ScanRequest): Promise<void> {
  const { tree, pace, onDifference } = request
  const groups = tree.storedGroups(
    Math.floor(range.first / GROUP_CHILDREN),
    Math.ceil(range.end / GROUP_CHILDREN),
  )
  for (const group of groups) {
    const first = Math.max(range.first, group * GROUP_CHILDREN)
    const end = Math.min(range.end, (group + 1) * GROUP_CHILDREN)
    for (let blockIndex = first; blockIndex < end; blockIndex++) {
      if (tree.leaf(blockIndex).equals(ZERO_HASH)) continue
      const wait = onDifference(blockIndex, ZERO_HASH, null)
      if (wait) await wait
    }
    const wait = pace.pauseIfDue()
    if (wait) await wait
  }
}
