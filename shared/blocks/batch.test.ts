import { randomBytes } from 'node:crypto'
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { BATCH_BLOCKS, BATCH_RAW_BYTES, BatchBuilder, type PackedBatch, unpackBatch } from './batch.ts'
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

describe('memory of a batch', () => {
  const filled = (value: number, bytes = BLOCK_BYTES) => Buffer.alloc(bytes, value)

  it('is what was given, its front; each batch asks for its own, and one of zeros for none', () => {
    const given: Buffer[] = []
    const builder = new BatchBuilder(() => {
      const memory = Buffer.alloc(BATCH_RAW_BYTES)
      given.push(memory)
      return memory
    })
    builder.add(1, null)
    expect(builder.take().payload).toHaveLength(0)
    builder.add(2, filled(2, 100))
    builder.add(3, filled(3))
    const first = builder.take().payload
    builder.add(4, filled(4))
    const second = builder.take().payload
    expect(given).toHaveLength(2)
    expect(first.buffer).toBe(given[0]?.buffer)
    expect(first.equals(Buffer.concat([filled(2, 100), filled(3)]))).toBe(true)
    expect(second.equals(filled(4))).toBe(true)
  })

  it('is its own, no larger than the payload, where none is given; and a block may change once it was added', () => {
    const builder = new BatchBuilder()
    const block = filled(1)
    builder.add(1, block)
    block.fill(9)
    const { payload } = builder.take()
    expect(payload.buffer.byteLength).toBe(BLOCK_BYTES)
    for (let i = 0; i < BATCH_BLOCKS; i++) builder.add(i, filled(i))
    const whole = builder.take().payload
    expect(whole.buffer.byteLength).toBe(BATCH_RAW_BYTES)
    builder.add(1, filled(7))
    expect(builder.take().payload.equals(filled(7))).toBe(true)
    expect(payload.equals(filled(1))).toBe(true)
    expect(whole.subarray(BLOCK_BYTES, 2 * BLOCK_BYTES).equals(filled(1))).toBe(true)
  })
})
