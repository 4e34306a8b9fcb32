import { randomBytes } from 'node:crypto'
import { expect, test } from 'vitest'
import { BLOCK_BYTES } from '#shared/blocks/block.ts'
import { Compressibility } from './compressibility.ts'

const dense = randomBytes(BLOCK_BYTES)
const text = Buffer.alloc(BLOCK_BYTES, 'one line of a log file like all the others\n')

function shareOf(blocks: Iterable<Buffer>): number | null {
  const compressibility = new Compressibility()
  for (const block of blocks) compressibility.add(block)
  return compressibility.storedShare
}

test('too few blocks say nothing', () => {
  expect(shareOf(Array.from({ length: 7 }, () => dense))).toBeNull()
})

test.each([
  ['random', () => dense, 1, 1],
  ['text', () => text, 0, 0.1],
  ['first text, then random', (i: number) => (i < 5_000 ? text : dense), 0.45, 0.55],
] as const)('%s: the samples are spread evenly over ten thousand blocks', (_case, blockOf, min, max) => {
  const share = shareOf(Array.from({ length: 10_000 }, (_, i) => blockOf(i)))
  expect(share).toBeGreaterThanOrEqual(min)
  expect(share).toBeLessThanOrEqual(max)
})
