import { randomBytes } from 'node:crypto'
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { BATCH_BLOCKS, BatchBuilder, type PackedBatch, unpackBatch } from './batch.ts'
import { BLOCK_BYTES } from './block.ts'
import { expandBlock, storeBlock } from './stored-block.ts'

const text = Buffer.from('All work and no play makes Jack a dull boy. '.repeat(2000)).subarray(0, BLOCK_BYTES)
const random = randomBytes(BLOCK_BYTES)

describe('the stored form of a block', () => {
  it('is nothing for zeros, a zstd frame where that pays, the block itself elsewhere', () => {
    expect(storeBlock(Buffer.alloc(BLOCK_BYTES), true)).toBeNull()
    expect(storeBlock(random, true)).toBe(random)
    expect(storeBlock(text, false)).toBe(text)
    const stored = storeBlock(text, true)
    expect(stored?.length).toBeLessThan(BLOCK_BYTES / 10)
    expect(zstdDecompressSync(stored ?? Buffer.alloc(0)).equals(text)).toBe(true)
  })

  it('notices a block of which only a part can be compressed', () => {
    const half = Buffer.concat([random.subarray(0, BLOCK_BYTES / 2), text.subarray(0, BLOCK_BYTES / 2)])
    expect(storeBlock(half, true)?.length).toBeLessThan(BLOCK_BYTES * 0.6)
  })

  it.each([
    ['a frame of more than a block', zstdCompressSync(Buffer.alloc(BLOCK_BYTES + 1))],
    ['a bomb', zstdCompressSync(Buffer.alloc(64 * 2 ** 20))],
    ['a frame of less', zstdCompressSync(Buffer.alloc(BLOCK_BYTES - 1, 1))],
    ['noise', randomBytes(500)],
    ['a cut frame', zstdCompressSync(text).subarray(0, 20)],
  ])('refuses %s', (_what, stored) => {
    expect(() => expandBlock(stored)).toThrow(expect.objectContaining({ code: 'block-malformed' }))
  })
})

describe('a batch', () => {
  it('gives back what was added', () => {
    const block = fc.constantFrom(null, text, random, Buffer.alloc(BLOCK_BYTES, 7))
    const blocks = fc.uniqueArray(fc.tuple(fc.nat(2 ** 32 - 1), block), {
      maxLength: BATCH_BLOCKS,
      selector: ([blockIndex]) => blockIndex,
    })
    fc.assert(
      fc.property(blocks, (unsorted) => {
        const added = [...unsorted].sort(([a], [b]) => a - b)
        const builder = new BatchBuilder()
        for (const [blockIndex, bytes] of added) builder.add(blockIndex, bytes && storeBlock(bytes, true))
        expect(builder.isFull).toBe(added.length === BATCH_BLOCKS)
        const batch = builder.take()
        expect(builder.isEmpty).toBe(true)
        expect(batch.blockIndexes).toEqual(added.map(([blockIndex]) => blockIndex))
        const unpacked = unpackBatch(batch)
        expect(unpacked.every((bytes, i) => (bytes ? added[i]?.[1]?.equals(bytes) : !added[i]?.[1]))).toBe(
          true,
        )
      }),
      { numRuns: 50 },
    )
  })

  const good: PackedBatch = { blockIndexes: [3, 9], storedBytes: [0, BLOCK_BYTES], payload: random }
  it.each<[string, Partial<PackedBatch>]>([
    ['sizes that do not match the payload', { storedBytes: [1, BLOCK_BYTES] }],
    ['a payload that is cut', { payload: random.subarray(1) }],
    ['more blocks than sizes', { blockIndexes: [3, 9, 10] }],
    ['blocks that do not ascend', { blockIndexes: [9, 9] }],
    [
      'too many blocks',
      {
        blockIndexes: Array.from({ length: 17 }, (_, i) => i),
        storedBytes: Array(17).fill(0),
        payload: Buffer.alloc(0),
      },
    ],
  ])('with %s is refused', (_what, change) => {
    expect(unpackBatch(good)).toHaveLength(2)
    expect(() => unpackBatch({ ...good, ...change })).toThrow(
      expect.objectContaining({ code: 'block-malformed' }),
    )
  })
})
