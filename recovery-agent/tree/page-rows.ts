/** The stored forms of pages and tops. */
import { crc32 } from 'node:zlib'
import { GROUP_BYTES, GROUP_CHILDREN, HASH_BYTES, ZERO_HASH } from '#shared/blocks/hash-tree.ts'

/** Over the tree's name as well: the top of another tree is not this one's. */
export function topChecksum(tree: string, top: Buffer): number {
  return crc32(top, crc32(tree))
}

/** Without the zeros at its end, in whole hashes. */
export function trimmed(page: Buffer): Buffer {
  let count = Math.ceil(page.length / HASH_BYTES)
  while (count > 0 && ZERO_HASH.equals(page.subarray((count - 1) * HASH_BYTES, count * HASH_BYTES))) count--
  return page.subarray(0, count * HASH_BYTES)
}

/** undefined: damaged so badly that it is no blob of this size. */
export function padded(hashes: unknown): Buffer | undefined {
  if (!Buffer.isBuffer(hashes) || hashes.length > GROUP_CHILDREN * HASH_BYTES) return undefined
  if (hashes.length === GROUP_BYTES) return hashes
  const page = Buffer.alloc(GROUP_BYTES)
  hashes.copy(page)
  return page
}

export function isTop(top: unknown): top is Buffer {
  return Buffer.isBuffer(top) && top.length === HASH_BYTES
}
