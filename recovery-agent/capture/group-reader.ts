/** Reads groups of 256 blocks of one disk of a held snapshot: their leaves, and blocks in stored form. */
import { BATCH_BLOCKS, BATCH_RAW_BYTES, BatchBuilder, type PackedBatch } from '#shared/blocks/batch.ts'
import { BLOCK_BYTES, blockCountOf } from '#shared/blocks/block.ts'
import { GROUP_BYTES, GROUP_CHILDREN, HASH_BYTES, leafOf, ZERO_HASH } from '#shared/blocks/hash-tree.ts'
import { storeBlock } from '#shared/blocks/stored-block.ts'
import type { SnapshotDisk } from '../hypervisor/port.ts'
import { READ_BYTES } from './limits.ts'
import type { StoredBatch } from './port.ts'
import { type BlockRange, cutByAllocation, rangesOf } from './ranges.ts'

const BLOCKS_PER_READ = READ_BYTES / BLOCK_BYTES

export class GroupReader {
  readonly #disk: SnapshotDisk
  readonly #payloadMemory: (sizeBytes: number) => Buffer | undefined
  readonly #allocated: readonly BlockRange[]
  readonly #scratch = Buffer.allocUnsafeSlow(READ_BYTES)
  /** Memory for payload that was read into and not sent, because some of it was zero. */
  #spare: Buffer | undefined
  #readBytes = 0

  /** `payloadMemory`: where payload goes that is not compressed, while it has room. */
  constructor(
    disk: SnapshotDisk,
    payloadMemory: (sizeBytes: number) => Buffer | undefined = () => undefined,
  ) {
    this.#disk = disk
    this.#payloadMemory = payloadMemory
    this.#allocated = rangesOf(disk.allocated, disk.sizeBytes)
  }

  get readBytes(): number {
    return this.#readBytes
  }

  /** The 256 leaves of a group, zeros beyond the end of the disk. */
  leaves(group: number): Buffer {
    const leaves = Buffer.alloc(GROUP_BYTES)
    const start = group * GROUP_CHILDREN
    for (const piece of this.#pieces(group)) {
      if (!piece.allocated) continue
      for (let first = piece.first; first < piece.end; first += BLOCKS_PER_READ) {
        const count = Math.min(BLOCKS_PER_READ, piece.end - first)
        this.#read(0, first, count)
        for (let i = 0; i < count; i++) leafOf(this.#slot(i)).copy(leaves, (first + i - start) * HASH_BYTES)
      }
    }
    return leaves
  }

  /** The disk may hold something there. */
  hasData(group: number): boolean {
    return this.#pieces(group).some(({ allocated }) => allocated)
  }

  /** For a target that has nothing of the group: its leaves, and its blocks that are not zero, in one reading. */
  fresh(
    group: number,
    { firstBatch, compress }: { readonly firstBatch: number; readonly compress: boolean },
  ): { leaves: Buffer; batches: StoredBatch[] } {
    const leaves = Buffer.alloc(GROUP_BYTES)
    const start = group * GROUP_CHILDREN
    const batches: StoredBatch[] = []
    const builder = new BatchBuilder()
    const push = (batch: PackedBatch) => batches.push({ batch: firstBatch + batches.length, ...batch })
    const flush = () => {
      if (!builder.isEmpty) push(builder.take())
    }
    for (const piece of this.#pieces(group)) {
      if (!piece.allocated) continue
      for (let first = piece.first; first < piece.end; first += BLOCKS_PER_READ) {
        const count = Math.min(BLOCKS_PER_READ, piece.end - first)
        // A whole batch of raw blocks is read where it is sent from: nothing copies it on the way.
        const whole = !compress && count === BATCH_BLOCKS ? this.#freshMemory() : null
        const into = whole ?? this.#scratch.subarray(0, count * BLOCK_BYTES)
        this.#fill(into, first)
        const blocks = Array.from({ length: count }, (_, i) =>
          into.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES),
        )
        let zeros = 0
        for (const [i, block] of blocks.entries()) {
          const leaf = leafOf(block)
          if (leaf === ZERO_HASH) zeros += 1
          else leaf.copy(leaves, (first + i - start) * HASH_BYTES)
        }
        if (whole && zeros === 0) {
          flush()
          push(rawBatch(first, whole))
          continue
        }
        for (const [i, block] of blocks.entries()) {
          const stored = storeBlock(block, compress)
          if (stored) builder.add(first + i, stored)
          if (builder.isFull) flush()
        }
        this.#spare = whole ?? this.#spare
      }
    }
    flush()
    return { leaves, batches }
  }

  /** These blocks, ascending, as batches numbered from `firstBatch`. `isZero`: known to be, so it is not read. */
  batches(
    blocks: readonly { readonly blockIndex: number; readonly isZero: boolean }[],
    { firstBatch, compress }: { readonly firstBatch: number; readonly compress: boolean },
  ): StoredBatch[] {
    const batches: StoredBatch[] = []
    const builder = new BatchBuilder()
    const take = () => batches.push({ batch: firstBatch + batches.length, ...builder.take() })
    for (const { blockIndex, isZero } of blocks) {
      if (!isZero) this.#read(0, blockIndex, 1)
      builder.add(blockIndex, isZero ? null : storeBlock(this.#slot(0), compress))
      if (builder.isFull) take()
    }
    if (!builder.isEmpty) take()
    return batches
  }

  #freshMemory(): Buffer {
    const spare = this.#spare
    this.#spare = undefined
    return spare ?? this.#payloadMemory(BATCH_RAW_BYTES) ?? Buffer.allocUnsafeSlow(BATCH_RAW_BYTES)
  }

  #pieces(group: number) {
    const first = group * GROUP_CHILDREN
    const end = Math.min(first + GROUP_CHILDREN, blockCountOf(this.#disk.sizeBytes))
    return cutByAllocation([{ first, end }], this.#allocated)
  }

  #slot(index: number): Buffer {
    return this.#scratch.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES)
  }

  #read(slot: number, firstBlock: number, count: number): void {
    this.#fill(this.#scratch.subarray(slot * BLOCK_BYTES, (slot + count) * BLOCK_BYTES), firstBlock)
  }

  #fill(into: Buffer, firstBlock: number): void {
    this.#disk.read(into, firstBlock * BLOCK_BYTES)
    this.#readBytes += into.length
  }
}

function rawBatch(first: number, payload: Buffer): PackedBatch {
  const blockIndexes = Array.from({ length: BATCH_BLOCKS }, (_, i) => first + i)
  return { blockIndexes, storedBytes: blockIndexes.map(() => BLOCK_BYTES), payload }
}
