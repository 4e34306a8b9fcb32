/** Reads groups of 256 blocks of one disk of a held snapshot: their leaves, and blocks in stored form. */
import { BatchBuilder } from '#shared/blocks/batch.ts'
import { BLOCK_BYTES, blockCountOf } from '#shared/blocks/block.ts'
import { GROUP_BYTES, GROUP_CHILDREN, HASH_BYTES, leafOf } from '#shared/blocks/hash-tree.ts'
import { storeBlock } from '#shared/blocks/stored-block.ts'
import type { SnapshotDisk } from '../hypervisor/port.ts'
import { READ_BYTES } from './limits.ts'
import type { StoredBatch } from './port.ts'
import { type BlockRange, cutByAllocation, rangesOf } from './ranges.ts'

const BLOCKS_PER_READ = READ_BYTES / BLOCK_BYTES

export class GroupReader {
  readonly #disk: SnapshotDisk
  readonly #allocated: readonly BlockRange[]
  readonly #scratch = Buffer.allocUnsafeSlow(READ_BYTES)
  #readBytes = 0

  constructor(disk: SnapshotDisk) {
    this.#disk = disk
    this.#allocated = rangesOf(disk.allocated, disk.sizeBytes)
  }

  get readBytes(): number {
    return this.#readBytes
  }

  /** The 256 leaves of a group, zeros beyond the end of the disk. */
  leaves(group: number): Buffer {
    const leaves = Buffer.alloc(GROUP_BYTES)
    const start = group * GROUP_CHILDREN
    const end = Math.min(start + GROUP_CHILDREN, blockCountOf(this.#disk.sizeBytes))
    for (const piece of cutByAllocation([{ first: start, end }], this.#allocated)) {
      if (!piece.allocated) continue
      for (let first = piece.first; first < piece.end; first += BLOCKS_PER_READ) {
        const count = Math.min(BLOCKS_PER_READ, piece.end - first)
        this.#read(0, first, count)
        for (let i = 0; i < count; i++) leafOf(this.#slot(i)).copy(leaves, (first + i - start) * HASH_BYTES)
      }
    }
    return leaves
  }

  /** These blocks, ascending, as batches numbered from `firstBatch`. `isZero`: known to be, so it is not read. */
  batches(
    blocks: readonly { readonly blockIndex: number; readonly isZero: boolean }[],
    { firstBatch, compress }: { readonly firstBatch: number; readonly compress: boolean },
  ): StoredBatch[] {
    const batches: StoredBatch[] = []
    const builder = new BatchBuilder()
    // Each block of a batch keeps a slot of the scratch buffer until the batch is taken.
    let slot = 0
    const take = () => {
      batches.push({ batch: firstBatch + batches.length, ...builder.take() })
      slot = 0
    }
    for (const { blockIndex, isZero } of blocks) {
      if (!isZero) this.#read(slot, blockIndex, 1)
      builder.add(blockIndex, isZero ? null : storeBlock(this.#slot(slot++), compress))
      if (builder.isFull) take()
    }
    if (!builder.isEmpty) take()
    return batches
  }

  #slot(index: number): Buffer {
    return this.#scratch.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES)
  }

  #read(slot: number, firstBlock: number, count: number): void {
    const into = this.#scratch.subarray(slot * BLOCK_BYTES, (slot + count) * BLOCK_BYTES)
    this.#disk.read(into, firstBlock * BLOCK_BYTES)
    this.#readBytes += into.length
  }
}
