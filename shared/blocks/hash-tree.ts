/**
 * The hash tree of one disk (DESIGN §5).
 *
 *   leaf   BLAKE3-256 over the 64 KiB of a block; a last short block is padded with zeros
 *   node   BLAKE3-256 over (level byte, 256 child hashes); a short last group is padded with ZERO_HASH
 *   root   BLAKE3-256 over ("hotsite-root-v1", sizeBytes as u64 LE, the topmost node)
 *
 * A zero block, and a group of nothing but zero children, has the constant ZERO_HASH (32 zero bytes), so that an
 * empty tree needs no rows and no work. BLAKE3 never yields it in practice (2^-256). The level byte separates a
 * node from a leaf whose content happens to be child hashes; the size in the root tells a grown disk from its past.
 */
import { Blake3Hasher, blake3UrlSafeBase64 } from '@napi-rs/blake-hash'
import { blockCountOf, isZeroBlock } from './block.ts'

export const HASH_BYTES = 32
export const GROUP_CHILDREN = 256
export const GROUP_BYTES = GROUP_CHILDREN * HASH_BYTES
export const ZERO_HASH: Buffer = Buffer.alloc(HASH_BYTES)
export const ZERO_GROUP: Buffer = Buffer.alloc(GROUP_BYTES)

/** The leaf of one block of exactly 64 KiB. By way of text: a hash handed over as memory costs three times as much, and the collector again. */
export function leafOf(block: Buffer): Buffer {
  return isZeroBlock(block) ? ZERO_HASH : Buffer.from(blake3UrlSafeBase64(block), 'base64url')
}

/** The node over one group of children; `children` is GROUP_BYTES long, `level` is 1 over leaves. */
export function nodeOf(children: Buffer, level: number): Buffer {
  if (children.equals(ZERO_GROUP)) return ZERO_HASH
  return new Blake3Hasher()
    .update(Buffer.from([level]))
    .update(children)
    .digestBuffer()
}

export function groupCountOf(sizeBytes: number): number {
  return Math.ceil(blockCountOf(sizeBytes) / GROUP_CHILDREN)
}

/** The root from the level-1 nodes (`groupHashes`: 32 bytes for each group of 256 blocks). */
export function rootOf(groupHashes: Buffer, sizeBytes: number): Buffer {
  let nodes = groupHashes
  for (let level = 2; nodes.length > HASH_BYTES; level++) nodes = parentsOf(nodes, level)
  const size = Buffer.alloc(8)
  size.writeBigUInt64LE(BigInt(sizeBytes))
  return new Blake3Hasher().update(Buffer.from('hotsite-root-v1')).update(size).update(nodes).digestBuffer()
}

function parentsOf(nodes: Buffer, level: number): Buffer {
  const count = Math.ceil(nodes.length / GROUP_BYTES)
  const parents = Buffer.alloc(count * HASH_BYTES)
  const children = Buffer.alloc(GROUP_BYTES)
  for (let i = 0; i < count; i++) {
    const end = Math.min(nodes.length, (i + 1) * GROUP_BYTES)
    children.fill(0)
    nodes.copy(children, 0, i * GROUP_BYTES, end)
    nodeOf(children, level).copy(parents, i * HASH_BYTES)
  }
  return parents
}
