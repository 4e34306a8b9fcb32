import { Blake3Hasher } from '@napi-rs/blake-hash'
import { ZERO_GROUP } from '#shared/blocks/hash-tree.ts'

/** BLAKE3-256 over the groups of a range that are not all zero, each with its number: empty regions cost nothing. */
export class LeavesDigest {
  readonly #hasher = new Blake3Hasher()

  add(group: number, leaves: Buffer): void {
    if (leaves.equals(ZERO_GROUP)) return
    const number = Buffer.alloc(4)
    number.writeUInt32LE(group)
    this.#hasher.update(number).update(leaves)
  }

  hex(): string {
    return this.#hasher.digestBuffer().toString('hex')
  }
}
