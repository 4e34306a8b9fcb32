import fc from 'fast-check'
import { expect, it } from 'vitest'
import { BLOCK_BYTES } from '#shared/blocks/block.ts'
import { type BlockRange, cutByAllocation, rangesOf } from './ranges.ts'

const extents = fc.array(
  fc.record({
    offsetBytes: fc.nat({ max: 40 * BLOCK_BYTES }),
    lengthBytes: fc.oneof(fc.nat({ max: 5 * BLOCK_BYTES }), fc.constant(BLOCK_BYTES)),
  }),
  { maxLength: 8 },
)
const sizeBytes = fc.integer({ min: 1, max: 40 * BLOCK_BYTES })

function blocksOf(ranges: readonly BlockRange[]): number[] {
  return ranges.flatMap(({ first, end }) => Array.from({ length: end - first }, (_, i) => first + i))
}

it('the blocks of extents are those that a byte of them lies in, ascending, each once', () => {
  fc.assert(
    fc.property(extents, sizeBytes, (list, size) => {
      const expected = new Set<number>()
      for (const { offsetBytes, lengthBytes } of list)
        for (let byte = offsetBytes; byte < Math.min(offsetBytes + lengthBytes, size); byte++) {
          expected.add(Math.floor(byte / BLOCK_BYTES))
          byte = Math.max(
            byte,
            Math.min((Math.floor(byte / BLOCK_BYTES) + 1) * BLOCK_BYTES, offsetBytes + lengthBytes) - 1,
          )
        }
      const ranges = rangesOf(list, size)
      expect(blocksOf(ranges)).toEqual([...expected].sort((a, b) => a - b))
      expect(ranges.every((range, i) => i === 0 || range.first > (ranges[i - 1]?.end ?? 0))).toBe(true)
    }),
  )
})

it('cutting by allocation keeps every wanted block once, in order, and knows which are allocated', () => {
  fc.assert(
    fc.property(extents, extents, sizeBytes, (wantedExtents, allocatedExtents, size) => {
      const wanted = rangesOf(wantedExtents, size)
      const allocated = rangesOf(allocatedExtents, size)
      const pieces = cutByAllocation(wanted, allocated)
      expect(blocksOf(pieces)).toEqual(blocksOf(wanted))
      const known = new Set(blocksOf(allocated))
      for (const piece of pieces)
        for (const block of blocksOf([piece])) expect(known.has(block)).toBe(piece.allocated)
    }),
  )
})
