import { BLOCK_BYTES } from '#shared/blocks/block.ts'
import type { Pace } from './pace.ts'

/** Entries of a mebibyte, so that memory is taken in few large pieces and given back whole. */
const SLAB_BYTES = 2 ** 20
/** Kept for what comes next: a collector that is drained often needs no new memory. */
const SPARE_SLABS = 8
/** What an entry costs beside its block. */
const ENTRY_BYTES = 64

interface Entry {
  readonly disk: number
  readonly blockIndex: number
  readonly block: Buffer | null
}

/** Changed blocks as they were read, so that a snapshot can be closed before anything is compressed or written. */
export class Collector {
  #entries: Entry[] = []
  #slab: Buffer = Buffer.alloc(0)
  #slabs: Buffer[] = []
  #spare: Buffer[] = []
  #bytes = 0

  get bytes(): number {
    return this.#bytes
  }

  /** Copies the block. */
  add(disk: number, blockIndex: number, block: Buffer | null): void {
    this.#entries.push({ disk, blockIndex, block: block && this.#copy(block) })
    this.#bytes += ENTRY_BYTES + (block?.length ?? 0)
  }

  /** Hands everything over, in order, and is empty afterwards. A block is only valid during its call. */
  async drain(
    take: (disk: number, blockIndex: number, block: Buffer | null) => void,
    pace: Pace,
  ): Promise<void> {
    const entries = this.#entries
    this.#entries = []
    this.#bytes = 0
    this.#slab = Buffer.alloc(0)
    const slabs = this.#slabs
    this.#slabs = []
    for (const entry of entries) {
      take(entry.disk, entry.blockIndex, entry.block)
      const wait = pace.pauseIfDue()
      if (wait) await wait
    }
    this.#spare = slabs.slice(0, SPARE_SLABS)
  }

  #copy(block: Buffer): Buffer {
    if (this.#slab.length < BLOCK_BYTES) {
      this.#slab = this.#spare.pop() ?? Buffer.allocUnsafeSlow(SLAB_BYTES)
      this.#slabs.push(this.#slab)
    }
    const copy = this.#slab.subarray(0, block.length)
    this.#slab = this.#slab.subarray(block.length)
    block.copy(copy)
    return copy
  }
}
