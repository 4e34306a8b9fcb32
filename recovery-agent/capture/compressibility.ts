import { sampledShare } from '#shared/blocks/stored-block.ts'

/** Blocks looked at: 17 µs each, whether compression is used or not. */
const MAX_SAMPLES = 64
/** Fewer blocks say nothing about a cycle. */
const MIN_SAMPLES = 8

/**
 * How well the blocks of one cycle compress, from a bounded number of them, evenly spread however many there are: when
 * the samples are full, every other one goes and the step doubles.
 */
export class Compressibility {
  #shares: number[] = []
  #step = 1
  #blocks = 0

  add(block: Buffer): void {
    if (this.#blocks++ % this.#step !== 0) return
    this.#shares.push(sampledShare(block))
    if (this.#shares.length < MAX_SAMPLES) return
    this.#shares = this.#shares.filter((_, index) => index % 2 === 0)
    this.#step *= 2
  }

  /** Mean size after compression, 0 to 1 of the size before; null: too few blocks. */
  get storedShare(): number | null {
    if (this.#shares.length < MIN_SAMPLES) return null
    return Math.min(1, this.#shares.reduce((sum, share) => sum + share, 0) / this.#shares.length)
  }
}
