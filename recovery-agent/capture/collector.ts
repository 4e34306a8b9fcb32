import { BLOCK_BYTES } from '#shared/blocks/block.ts'
import type { Pace } from './pace.ts'

/** Entries of a mebibyte, so that memory is taken in few large pieces and given back whole. */
const SLAB_BYTES = 2 ** 20
/** What an entry costs beside its block. */
const ENTRY_BYTES = 64

interface Entry {
  readonly disk: number
  readonly blockIndex: number
  readonly block: Buffer | null
}

/**
 * Changed blocks as they were read, so that a snapshot can be closed before anything is compressed or written. What is
 * drained makes room for what comes next, and disposing gives all of it back: left to the garbage collector, the memory of
 * one cycle would still be there in the next.
 */
export class Collector implements Disposable {
  #entries: Entry[] = []
  readonly #slabs: ArrayBuffer[] = []
  #usedSlabs = 0
  #room: Buffer = Buffer.alloc(0)
  #bytes = 0

  get bytes(): number {
    return this.#bytes
  }

  /** Copies the block. */
  add(disk: number, blockIndex: number, block: Buffer | null): void {
    this.#entries.push({ disk, blockIndex, block: block && this.#copy(block) })
    this.#bytes += ENTRY_BYTES + (block?.length ?? 0)
  }

  /** Hands everything over, in order, and is empty afterwards. A block is only valid while `take` runs. */
  async drain(
    take: (disk: number, blockIndex: number, block: Buffer | null) => void,
    pace: Pace,
  ): Promise<void> {
    const entries = this.#entries
    this.#entries = []
    for (const entry of entries) {
      take(entry.disk, entry.blockIndex, entry.block)
      const wait = pace.pauseIfDue()
      if (wait) await wait
    }
    this.#bytes = 0
    this.#usedSlabs = 0
    this.#room = Buffer.alloc(0)
  }

  [Symbol.dispose](): void {
    this.#entries = []
    // A buffer that is transferred away has no memory any more, whoever still refers to it.
    for (const slab of this.#slabs) slab.transfer(0)
    this.#slabs.length = 0
  }

  #copy(block: Buffer): Buffer {
    if (this.#room.length < BLOCK_BYTES) this.#room = this.#nextSlab()
    const copy = this.#room.subarray(0, block.length)
    this.#room = this.#room.subarray(block.length)
    block.copy(copy)
    return copy
  }

  #nextSlab(): Buffer {
    const slab = this.#slabs[this.#usedSlabs] ?? new ArrayBuffer(SLAB_BYTES)
    this.#slabs[this.#usedSlabs] = slab
    this.#usedSlabs += 1
    return Buffer.from(slab)
  }
}
