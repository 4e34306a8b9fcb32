/**
 * Finds the changed blocks of one disk of a snapshot.
 *
 * Candidates are the tracker's extents, or with the scan tracker the whole disk. Of these, what is allocated is read
 * and hashed; what is not allocated reads as zeros, so there only blocks whose stored leaf is not zero have changed,
 * and the stored tree names them without touching the disk. An empty region costs nothing either way.
 */
import { BLOCK_BYTES, blockCountOf } from '#shared/blocks/block.ts'
import { GROUP_CHILDREN, HASH_BYTES, leafOf, ZERO_HASH } from '#shared/blocks/hash-tree.ts'
import type { SnapshotDisk } from '../hypervisor/port.ts'
import type { PendingTree } from '../tree/leaf-store.ts'
import { READ_BYTES } from './limits.ts'
import type { Pace } from './pace.ts'
import { type BlockRange, cutByAllocation, normalize, rangesOf } from './ranges.ts'

export interface ScanRequest {
  readonly disk: SnapshotDisk
  /** Receives the new leaves. */
  readonly tree: PendingTree
  /** Size at the stored point; null: the disk is new. */
  readonly formerSizeBytes: number | null
  /** READ_BYTES long, reused. */
  readonly scratch: Buffer
  readonly pace: Pace
  /** `block` is only valid during the call; null: it is zero now. Ascending. A promise is awaited. */
  readonly onChange: (blockIndex: number, block: Buffer | null) => Promise<void> | undefined
}

/** Answers the bytes read. */
export async function scanDisk(request: ScanRequest): Promise<number> {
  const { disk, tree } = request
  const pieces = cutByAllocation(
    candidates(disk, request.formerSizeBytes),
    rangesOf(disk.allocated, disk.sizeBytes),
  )
  const nodes = tree.groupHashes(disk.sizeBytes)
  let scannedBytes = 0
  for (const piece of pieces) {
    if (piece.allocated) scannedBytes += await scanData(piece, request)
    else await scanHole(piece, nodes, request)
  }
  return scannedBytes
}

/** A tracker knows nothing of what a changed size does: the block at the old end and everything above it count as changed. */
function candidates(disk: SnapshotDisk, formerSizeBytes: number | null): BlockRange[] {
  const all = { first: 0, end: blockCountOf(disk.sizeBytes) }
  if (disk.changes.kind === 'scan' || formerSizeBytes === null) return normalize([all])
  const tracked = rangesOf(disk.changes.extents, disk.sizeBytes)
  if (formerSizeBytes === disk.sizeBytes) return tracked
  const seam = Math.floor(Math.min(formerSizeBytes, disk.sizeBytes) / BLOCK_BYTES)
  return normalize([...tracked, { first: seam, end: all.end }])
}

async function scanData(range: BlockRange, request: ScanRequest): Promise<number> {
  const { disk, tree, scratch, pace, onChange } = request
  const blocksPerRead = READ_BYTES / BLOCK_BYTES
  for (let first = range.first; first < range.end; first += blocksPerRead) {
    const count = Math.min(blocksPerRead, range.end - first)
    disk.read(scratch.subarray(0, count * BLOCK_BYTES), first * BLOCK_BYTES)
    for (let i = 0; i < count; i++) {
      const block = scratch.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES)
      const leaf = leafOf(block)
      if (leaf.equals(tree.leaf(first + i))) continue
      tree.setLeaf(first + i, leaf)
      const wait = onChange(first + i, leaf === ZERO_HASH ? null : block)
      if (wait) await wait
    }
    const wait = pace.pauseIfDue()
    if (wait) await wait
  }
  return (range.end - range.first) * BLOCK_BYTES
}

async function scanHole(range: BlockRange, nodes: Buffer, request: ScanRequest): Promise<void> {
  const { tree, onChange } = request
  const lastGroup = Math.floor((range.end - 1) / GROUP_CHILDREN)
  for (let group = Math.floor(range.first / GROUP_CHILDREN); group <= lastGroup; group++) {
    if (ZERO_HASH.equals(nodes.subarray(group * HASH_BYTES, (group + 1) * HASH_BYTES))) continue
    const first = Math.max(range.first, group * GROUP_CHILDREN)
    const end = Math.min(range.end, (group + 1) * GROUP_CHILDREN)
    for (let blockIndex = first; blockIndex < end; blockIndex++) {
      if (tree.leaf(blockIndex).equals(ZERO_HASH)) continue
      tree.setLeaf(blockIndex, ZERO_HASH)
      const wait = onChange(blockIndex, null)
      if (wait) await wait
    }
  }
}
