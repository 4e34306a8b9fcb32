import { describe, expect, it } from 'vitest'
import type { DiskId } from '#shared/ids.ts'
import type { ChainPoint } from '../catalog/chain.ts'
import { hasBacking, type MergeRun, mergeRuns, uppersOf } from './merge-run.ts'

function member(
  seq: number,
  state: ChainPoint['state'] = 'point',
  disks: readonly string[] = ['d0'],
): ChainPoint {
  return {
    epoch: 1,
    seq,
    state,
    capturedAtMs: seq,
    completedAtMs: seq,
    consistency: 'crash',
    pinned: false,
    disks: disks.map((diskId) => ({
      diskId: diskId as DiskId,
      sizeBytes: 65_536,
      root: Buffer.alloc(32),
      changedBytes: 0,
      storedBytes: 0,
    })),
  }
}

/** p: a point, b: a base, m: marked. */
function chainOf(states: string): ChainPoint[] {
  const words = { p: 'point', b: 'base', m: 'merging' } as const
  return [...states].map((letter, i) => member(i + 1, words[letter as keyof typeof words]))
}

const text = ({ members, target, below }: MergeRun) =>
  `${below?.seq ?? '-'}: ${members.map(({ seq }) => seq).join(' ')} > ${target.seq}`

describe('the runs of a chain', () => {
  it.each<[string, string, number[], string[]]>([
    ['nothing due', 'ppp', [], []],
    ['nothing at all', '', [], []],
    ['a base alone has nothing to go into', 'b', [], []],
    ['a base goes into the first point', 'bpp', [], ['-: 1 > 2']],
    ['neighbours go together', 'ppppp', [1, 2, 3], ['-: 1 2 3 > 4']],
    ['thinning in the middle', 'pppppp', [2, 4, 5], ['1: 2 > 3', '3: 4 5 > 6']],
    ['what was begun comes first, as it was begun', 'ppmmpp', [1, 2, 5], ['2: 3 4 > 5', '-: 1 2 5 > 6']],
  ])('%s', (_, states, dropped, runs) => {
    expect(mergeRuns(chainOf(states), new Set(dropped)).map(text)).toEqual(runs)
  })

  it('are bounded, and what was not taken follows', () => {
    const chain = chainOf('p'.repeat(70))
    const runs = mergeRuns(chain, new Set(chain.slice(0, -1).map(({ seq }) => seq)))
    expect(runs.map(({ members, target }) => [members.length, target.seq])).toEqual([
      [31, 32],
      [31, 63],
      [7, 70],
    ])
    expect(runs.flatMap(uppersOf).map(({ seq }) => seq)).toEqual(chain.slice(1).map(({ seq }) => seq))
  })

  it('know which layers stood on another one', () => {
    const chain = [member(1), member(2), member(3, 'point', []), member(4), member(5), member(6)]
    const [run] = mergeRuns(chain, new Set([2, 3, 4, 5]))
    expect(run?.members.map((one) => run && hasBacking(run, one, 'd0' as DiskId))).toEqual([
      true,
      false,
      false,
      false,
    ])
  })
})
