import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { keptPoints, type PendingDelta, planCatchUp } from './catch-up.ts'

const minuteMs = 60_000
const policy = { retentionPoints: 4, retentionIntervalSeconds: 3600, appConsistentHours: 0 }
const delta = (seq: number, atMinutes: number, changes: Partial<PendingDelta> = {}): PendingDelta => ({
  epoch: 1,
  seq,
  capturedAtMs: atMinutes * minuteMs,
  consistency: 'crash',
  suspect: false,
  changedBlocks: 10,
  layout: 'disk-0/1000',
  ...changes,
})
const plan = (pending: PendingDelta[], changes: { policy?: typeof policy; maxBlocks?: number } = {}) =>
  planCatchUp({ held: [delta(1, 0)], pending, policy, maxBlocks: 1e6, ...changes }).map(
    ({ firstSeq, lastSeq }) => `${firstSeq}-${lastSeq}`,
  )

describe('a backlog', () => {
  test.each([
    ['nothing waits', [], {}, []],
    ['one delta', [delta(2, 1)], {}, ['2-2']],
    ['half an hour: only the newest stays', [delta(2, 10), delta(3, 20), delta(4, 30)], {}, ['2-4']],
    [
      'two hours: one point for each, and the newest',
      [delta(2, 30), delta(3, 60), delta(4, 90), delta(5, 120), delta(6, 125)],
      {},
      ['2-3', '4-5', '6-6'],
    ],
    [
      'a policy that keeps the latest only',
      [delta(2, 60), delta(3, 120), delta(4, 180)],
      { policy: { ...policy, retentionPoints: 0 } },
      ['2-4'],
    ],
    [
      'a disk that changed its size ends a run',
      [delta(2, 10), delta(3, 20, { layout: 'disk-0/2000' }), delta(4, 30, { layout: 'disk-0/2000' })],
      {},
      ['2-2', '3-4'],
    ],
    [
      'a suspect point, and the one before it, stay',
      [delta(2, 10), delta(3, 20), delta(4, 30, { suspect: true }), delta(5, 40)],
      {},
      ['2-3', '4-4', '5-5'],
    ],
    ['a bounded index', [delta(2, 10), delta(3, 20), delta(4, 30)], { maxBlocks: 20 }, ['2-3', '4-4']],
  ] as const)('%s', (_case, pending, changes, expected) => {
    expect(plan([...pending], changes)).toEqual(expected)
  })
})

test('runs cover the backlog in order, and whatever would be kept is the end of one', () => {
  const pendings = fc
    .array(
      fc.record({
        minutes: fc.integer({ min: 1, max: 90 }),
        blocks: fc.nat(100),
        suspect: fc.integer({ min: 0, max: 9 }).map((n) => n === 0),
        consistency: fc.constantFrom('crash' as const, 'crash' as const, 'application' as const),
        layout: fc.constantFrom('a', 'a', 'a', 'b'),
      }),
      { maxLength: 60 },
    )
    .map((steps) => {
      let atMinutes = 0
      return steps.map(({ minutes, blocks: changedBlocks, suspect, consistency, layout }, i) => {
        atMinutes += minutes
        return delta(i + 2, atMinutes, { changedBlocks, suspect, consistency, layout })
      })
    })
  const policies = fc.record({
    retentionPoints: fc.nat(15),
    retentionIntervalSeconds: fc.constantFrom(0, 600, 3600),
    appConsistentHours: fc.nat(2),
  })
  fc.assert(
    fc.property(pendings, policies, fc.integer({ min: 1, max: 2000 }), (pending, keeping, maxBlocks) => {
      const held = [delta(1, 0)]
      const runs = planCatchUp({ held, pending, policy: keeping, maxBlocks })
      const covered = runs.flatMap(({ firstSeq, lastSeq }) =>
        Array.from({ length: lastSeq - firstSeq + 1 }, (_, i) => firstSeq + i),
      )
      expect(covered).toEqual(pending.map(({ seq }) => seq))
      const ends = new Set(runs.map(({ lastSeq }) => lastSeq))
      for (const { seq } of keptPoints([...held, ...pending], keeping))
        if (seq > 1) expect(ends).toContain(seq)
      for (const { firstSeq, lastSeq } of runs) {
        const members = pending.filter(({ seq }) => seq >= firstSeq && seq <= lastSeq)
        expect(new Set(members.map(({ layout }) => layout)).size).toBe(1)
        if (members.length > 1)
          expect(members.reduce((sum, one) => sum + one.changedBlocks, 0)).toBeLessThanOrEqual(maxBlocks)
      }
    }),
  )
})

test('what the target keeps afterwards is what it would keep had every point arrived by itself', () => {
  const steps = fc.array(fc.integer({ min: 1, max: 90 }), { minLength: 1, maxLength: 60 })
  const policies = fc.record({
    retentionPoints: fc.nat(15),
    retentionIntervalSeconds: fc.constantFrom(0, 600, 3600),
    appConsistentHours: fc.constant(0),
  })
  fc.assert(
    fc.property(steps, policies, (minutes, keeping) => {
      let atMinutes = 0
      const pending = minutes.map((step, i) => {
        atMinutes += step
        return delta(i + 2, atMinutes)
      })
      const held = [delta(1, 0)]
      const arriving = (seqs: readonly number[]) => {
        let known: readonly PendingDelta[] = held
        for (const one of pending) if (seqs.includes(one.seq)) known = keptPoints([...known, one], keeping)
        return known.map(({ seq }) => seq)
      }
      const runs = planCatchUp({ held, pending, policy: keeping, maxBlocks: 1e6 })
      expect(arriving(runs.map(({ lastSeq }) => lastSeq))).toEqual(arriving(pending.map(({ seq }) => seq)))
    }),
  )
})
