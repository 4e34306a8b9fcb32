import { blake3 } from '@napi-rs/blake-hash'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { BLOCK_BYTES, blockCountOf, isZeroBlock } from './block.ts'
import {
  GROUP_BYTES,
  GROUP_CHILDREN,
  groupCountOf,
  HASH_BYTES,
  leafOf,
  nodeOf,
  rootOf,
  ZERO_GROUP,
  ZERO_HASH,
} from './hash-tree.ts'

describe('blocks', () => {
  it.each([
    [1, 1],
    [BLOCK_BYTES, 1],
    [BLOCK_BYTES + 1, 2],
    [2 ** 40, 2 ** 24],
  ])('counts the blocks of %i bytes as %i', (sizeBytes, count) => {
    expect(blockCountOf(sizeBytes)).toBe(count)
  })

  it('knows a zero block by its content, whole or short', () => {
    expect(isZeroBlock(Buffer.alloc(BLOCK_BYTES))).toBe(true)
    expect(isZeroBlock(Buffer.alloc(512))).toBe(true)
    const block = Buffer.alloc(BLOCK_BYTES)
    block[BLOCK_BYTES - 1] = 1
    expect(isZeroBlock(block)).toBe(false)
  })
})

describe('the hash tree', () => {
  it('gives zero blocks and groups a constant, and everything else its BLAKE3', () => {
    expect(leafOf(Buffer.alloc(BLOCK_BYTES))).toBe(ZERO_HASH)
    expect(nodeOf(Buffer.from(ZERO_GROUP), 1)).toBe(ZERO_HASH)
    const block = Buffer.alloc(BLOCK_BYTES, 7)
    expect(leafOf(block)).toEqual(blake3(block))
    const children = Buffer.alloc(GROUP_BYTES, 3)
    expect(nodeOf(children, 2)).toEqual(blake3(Buffer.concat([Buffer.from([2]), children])))
    expect(nodeOf(children, 2)).not.toEqual(nodeOf(children, 1))
  })

  it('is what its definition says, over three levels', () => {
    const groups = GROUP_CHILDREN + 3
    const sizeBytes = groups * GROUP_CHILDREN * BLOCK_BYTES
    expect(groupCountOf(sizeBytes)).toBe(groups)
    const nodes = Buffer.alloc(groups * HASH_BYTES)
    nodes.fill(9, 5 * HASH_BYTES, 6 * HASH_BYTES)
    nodes.fill(4, 257 * HASH_BYTES, 258 * HASH_BYTES)
    const second = Buffer.alloc(GROUP_BYTES)
    nodes.copy(second, 0, GROUP_BYTES)
    const top = Buffer.alloc(GROUP_BYTES)
    nodeOf(nodes.subarray(0, GROUP_BYTES), 2).copy(top, 0)
    nodeOf(second, 2).copy(top, HASH_BYTES)
    const size = Buffer.alloc(8)
    size.writeBigUInt64LE(BigInt(sizeBytes))
    const expected = blake3(Buffer.concat([Buffer.from('hotsite-root-v1'), size, nodeOf(top, 3)]))
    expect(rootOf(nodes, sizeBytes)).toEqual(expected)
  })

  it('changes its root with any node, and with the size alone', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 600 }), fc.nat(), fc.nat(255), (groups, at, bit) => {
        const nodes = Buffer.alloc(groups * HASH_BYTES, 1)
        const sizeBytes = groups * GROUP_CHILDREN * BLOCK_BYTES
        const before = rootOf(nodes, sizeBytes)
        expect(rootOf(nodes, sizeBytes - 512)).not.toEqual(before)
        const index = (at % groups) * HASH_BYTES + (bit >> 3)
        nodes[index] = (nodes[index] ?? 0) ^ (1 << (bit & 7))
        expect(rootOf(nodes, sizeBytes)).not.toEqual(before)
      }),
    )
  })
})
