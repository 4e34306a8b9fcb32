import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { planWalk, sampleRanges, walkBudgetBlocks } from './disk-walk.ts'
import { type BlockRange, blocksIn, cutByData, type NextData, normalize } from './ranges.ts'

const blockCount = fc.integer({ min: 1, max: 500 })
const data = fc.array(fc.record({ first: fc.nat(500), length: fc.integer({ min: 1, max: 60 }) }), {
  maxLength: 8,
})

function nextIn(ranges: readonly BlockRange[]): NextData {
  return (block) => ranges.find(({ end }) => end > block) ?? null
}

describe('the walk over what a tracker called unchanged', () => {
  it('goes once round every block, reads no more data in a cycle than it may, and then begins again', () => {
    fc.assert(
      fc.property(blockCount, data, fc.integer({ min: 1, max: 50 }), (count, list, budgetBlocks) => {
        const ranges = normalize(
          list.map(({ first, length }) => ({ first, end: Math.min(count, first + length) })),
        )
        const nextData = nextIn(ranges)
        let nextBlock = 0
        let settled = 0
        for (let step = 0; ; step++) {
          expect(step).toBeLessThanOrEqual(Math.ceil(blocksIn(ranges) / budgetBlocks) + 1)
          const plan = planWalk({ nextBlock, blockCount: count, budgetBlocks, nextData })
          expect(plan.range.first).toBe(settled)
          settled = plan.range.end
          const read = [...cutByData([plan.range], nextData)].filter(({ allocated }) => allocated)
          expect(blocksIn(read)).toBeLessThanOrEqual(budgetBlocks)
          nextBlock = plan.nextBlock
          if (plan.isRound) break
        }
        expect(settled).toBe(count)
        expect(planWalk({ nextBlock, blockCount: count, budgetBlocks, nextData }).range.first).toBe(0)
      }),
    )
  })

  it.each([
    [
      'a full disk within the time, in cycles of 30 s',
      { elapsedMs: 30_000, passMs: 3_600_000, maxBlocks: 4096 },
      1366,
    ],
    ['never more than a VM may be held for', { elapsedMs: 30_000, passMs: 60_000, maxBlocks: 4096 }, 4096],
    [
      'at least one block, also when nothing is known of the cycle before',
      { elapsedMs: 0, passMs: 1, maxBlocks: 9 },
      1,
    ],
    ['nothing when no walk is wanted', { elapsedMs: 30_000, passMs: 0, maxBlocks: 4096 }, 0],
  ])('reads %s', (_what, of, expected) => {
    expect(walkBudgetBlocks({ blockCount: 163_840, ...of })).toBe(expected)
  })
})

it('a sample lies evenly over the disk, is as large as asked for, and is everything at 100 percent', () => {
  fc.assert(
    fc.property(
      blockCount,
      fc.double({ min: 0.1, max: 100, noNaN: true }),
      fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }),
      (count, percent, offset) => {
        const ranges = sampleRanges({ blockCount: count, percent, offset })
        expect(blocksIn(normalize(ranges)), 'no block twice').toBe(blocksIn(ranges))
        expect(ranges.every(({ first, end }) => first < end && end <= count)).toBe(true)
        if (percent === 100) expect(blocksIn(ranges)).toBe(count)
        else expect(ranges).toHaveLength(Math.ceil((Math.ceil(count / 16) * percent) / 100))
      },
    ),
  )
})
