import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type PendingDelta, planCatchUp } from './catch-up.ts'
import { planUnion } from './newest-first.ts'

const minuteMs = 60_000
const policy = { retentionPoints: 4, retentionIntervalSeconds: 3600, appConsistentHours: 0 }
const delta = (seq: number, atMinutes: number, changes: Partial<PendingDelta> = {}): PendingDelta => ({
  epoch: 1,
  seq,
  capturedAtMs: atMinutes * minuteMs,
  consistency: 'crash',
  suspect: false,
  changedBlocks: 10,
  layout: 'a',
  ...changes,
})
const unionOf = (
  pending: readonly PendingDelta[],
  { baseLayout = 'a', maxBlocks = 1e6 }: { baseLayout?: string | null; maxBlocks?: number } = {},
) => {
  const runs = planCatchUp({ held: [delta(1, 0)], pending, policy, maxBlocks })
  return planUnion({ runs, pending, baseLayout, maxBlocks })
}
const text = (union: ReturnType<typeof unionOf>) =>
  union ? `${union.firstSeq}-${union.lastSeq}, then ${union.points.map(({ seq }) => seq)}` : 'none'

const hours = [delta(2, 60), delta(3, 90), delta(4, 120), delta(5, 150)]

describe('what is sent first of a backlog', () => {
  test.each([
    ['nothing waits', [], {}, 'none'],
    ['one delta', [delta(2, 60)], {}, 'none'],
    ['only the newest would stay', [delta(2, 10), delta(3, 20), delta(4, 30)], {}, 'none'],
    ['two hours: the newest, then the point of each hour', hours, {}, '2-5, then 2,4'],
    ['the disks of the point it stands on are not known', hours, { baseLayout: null }, 'none'],
    ['the disks changed since that point', hours, { baseLayout: 'b' }, 'none'],
    [
      'they changed in between: what is before the change',
      [...hours, delta(6, 200, { layout: 'b' }), delta(7, 240, { layout: 'b' })],
      {},
      '2-5, then 2,4',
    ],
    [
      'they changed after the first of them',
      [delta(2, 60), delta(3, 120, { layout: 'b' }), delta(4, 180, { layout: 'b' })],
      {},
      'none',
    ],
    ['an epoch that began in between', [delta(2, 60), delta(3, 120, { epoch: 2 })], {}, 'none'],
    ['a bounded index: as many runs as it holds', hours, { maxBlocks: 30 }, '2-4, then 2'],
    ['a bounded index that holds no two runs', hours, { maxBlocks: 15 }, 'none'],
  ] as const)('%s', (_case, pending, changes, expected) => {
    expect(text(unionOf(pending, changes))).toBe(expected)
  })
})

test('it begins where the backlog does, and what follows are the ends of its runs', () => {
  const pendings = fc
    .array(
      fc.record({
        minutes: fc.integer({ min: 1, max: 90 }),
        changedBlocks: fc.nat(100),
        layout: fc.constantFrom('a', 'a', 'a', 'a', 'b'),
      }),
      { maxLength: 40 },
    )
    .map((steps) => {
      let atMinutes = 0
      return steps.map(({ minutes, ...changes }, i) => {
        atMinutes += minutes
        return delta(i + 2, atMinutes, changes)
      })
    })
  fc.assert(
    fc.property(pendings, fc.integer({ min: 50, max: 2000 }), (pending, maxBlocks) => {
      const runs = planCatchUp({ held: [delta(1, 0)], pending, policy, maxBlocks })
      const union = planUnion({ runs, pending, baseLayout: 'a', maxBlocks })
      if (!union) return
      const within = pending.filter(({ seq }) => seq <= union.lastSeq)
      expect(union.firstSeq).toBe(pending[0]?.seq)
      expect(within.every(({ layout }) => layout === 'a')).toBe(true)
      expect(within.reduce((sum, { changedBlocks }) => sum + changedBlocks, 0)).toBeLessThanOrEqual(maxBlocks)
      const ends = runs.map(({ lastSeq }) => lastSeq).filter((seq) => seq <= union.lastSeq)
      expect([...union.points.map(({ seq }) => seq), union.lastSeq]).toEqual(ends)
    }),
  )
})
