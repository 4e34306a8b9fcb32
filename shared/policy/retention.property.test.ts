import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { decideRetention, type RetainablePoint, type RetentionPolicy } from './retention.ts'
import { application, hourly, hourMs, point, simulate } from './testing/points.ts'

const amounts = fc.constantFrom(0, 1, 3, 15)
const cycles = fc.array(fc.constantFrom(0.5, 5, 5, 5, 15, 15, 240), { minLength: 1, maxLength: 400 })

describe('retention over simulated days', () => {
  it('keeps the newest, never more than the amount beside it, all an interval apart, and nothing changes the second time', () => {
    fc.assert(
      fc.property(cycles, amounts, fc.constantFrom(0, 1800, 3600), (gaps, amount, interval) => {
        const policy: RetentionPolicy = {
          kind: 'amount',
          retentionPoints: amount,
          retentionIntervalSeconds: interval,
          appConsistentHours: 0,
        }
        simulate(gaps, policy).forEach((kept, i) => {
          expect(kept.at(-1)?.seq).toBe(i + 1)
          expect(kept.length).toBeLessThanOrEqual(amount + 1)
          const behind = kept.slice(0, -1)
          for (const [j, one] of behind.slice(1).entries()) {
            const elapsedMs = one.capturedAtMs - (behind[j]?.capturedAtMs ?? 0)
            expect(elapsedMs).toBeGreaterThanOrEqual(interval * 1000)
          }
          const again = decideRetention({ points: kept, policy })
          expect(again.every(({ keep }) => keep)).toBe(true)
        })
      }),
      { numRuns: 60 },
    )
  })

  it('never takes pinned points or points in use, and does not count them', () => {
    fc.assert(
      fc.property(cycles, amounts, fc.integer({ min: 2, max: 9 }), (gaps, amount, every) => {
        const mark = (seq: number) =>
          seq % every === 0 ? (seq % 2 === 0 ? { pinned: true } : { inUse: true }) : {}
        const kept = simulate(gaps, hourly(amount), mark).at(-1) ?? []
        const marked = kept.filter(({ pinned, inUse }) => pinned || inUse)
        expect(marked).toHaveLength(Math.floor(gaps.length / every))
        expect(kept.length - marked.length).toBeLessThanOrEqual(amount + 1)
      }),
      { numRuns: 40 },
    )
  })

  it.each([1, 3, 15])('is not starved by frequent cycles: after two days %i hours are there', (amount) => {
    const kept = simulate(new Array<number>(48 * 12).fill(5), hourly(amount)).at(-1) ?? []
    expect(kept).toHaveLength(amount + 1)
    const newest = kept.at(-1)?.capturedAtMs ?? 0
    const oldest = kept[0]?.capturedAtMs ?? 0
    expect(newest - oldest).toBeGreaterThanOrEqual((amount - 1) * hourMs)
    expect(newest - oldest).toBeLessThanOrEqual((amount + 1) * hourMs)
  })
})

const anyCycle = fc.record({
  gap: fc.constantFrom(0.5, 0.5, 5, 5, 15, 15, 240, 3000, -90, -2000),
  marks: fc.record({
    pinned: fc.integer({ min: 0, max: 20 }).map((n) => n === 0),
    inUse: fc.integer({ min: 0, max: 20 }).map((n) => n === 0),
    suspect: fc.integer({ min: 0, max: 10 }).map((n) => n === 0),
    damaged: fc.integer({ min: 0, max: 10 }).map((n) => n === 0),
    consistency: fc.constantFrom('crash', 'crash', 'crash', 'application'),
  }),
})
const anyPolicy = fc.oneof(
  fc.record({
    kind: fc.constant('amount'),
    retentionPoints: amounts,
    retentionIntervalSeconds: fc.constantFrom(0, 1800, 3600),
    appConsistentHours: fc.constantFrom(0, 1),
  }),
  fc.record({
    kind: fc.constant('time'),
    retentionHours: fc.constantFrom(0, 1, 5, 24),
    copyFrequencySeconds: fc.constantFrom(30, 300, 900),
    appConsistentHours: fc.constantFrom(0, 1),
  }),
) satisfies fc.Arbitrary<RetentionPolicy>

describe('retention, whatever the policy, the gaps, the clock and the marks', () => {
  it('never drops what is held, keeps a sound point, settles at once, and gives a reason for every point', () => {
    fc.assert(
      fc.property(fc.array(anyCycle, { minLength: 1, maxLength: 150 }), anyPolicy, (life, policy) => {
        let kept: RetainablePoint[] = []
        let minutes = 10_000
        life.forEach(({ gap, marks }, i) => {
          minutes += gap
          const points = [...kept, point(i + 1, minutes, marks)]
          const decisions = decideRetention({ points, policy })
          expect(decisions.map(({ seq }) => seq)).toEqual(points.map(({ seq }) => seq))
          const keeps = new Set(decisions.filter(({ keep }) => keep).map(({ seq }) => seq))
          kept = points.filter(({ seq }) => keeps.has(seq))
          expect(keeps.has(i + 1)).toBe(true)
          for (const one of points) if (one.pinned || one.inUse) expect(keeps.has(one.seq)).toBe(true)
          expect(kept.some((one) => !one.damaged)).toBe(points.some((one) => !one.damaged))
          expect(decisions.filter(({ reason }) => reason === 'before-suspect').length).toBeLessThanOrEqual(3)
          expect(decideRetention({ points: kept, policy }).every(({ keep }) => keep)).toBe(true)
        })
      }),
      { numRuns: 150 },
    )
  })

  it('never wants back what it dropped while nothing is marked, damaged or set back', () => {
    const gaps = fc.array(fc.constantFrom(0.5, 0.5, 5, 5, 15, 70, 240), { minLength: 1, maxLength: 120 })
    fc.assert(
      fc.property(gaps, anyPolicy, (life, policy) => {
        const all: RetainablePoint[] = []
        let kept: RetainablePoint[] = []
        let minutes = 0
        life.forEach((gap, i) => {
          minutes += gap
          const next = point(i + 1, minutes, i % 7 === 3 ? application : {})
          all.push(next)
          const keepOf = (points: readonly RetainablePoint[]) =>
            new Set(
              decideRetention({ points, policy })
                .filter(({ keep }) => keep)
                .map(({ seq }) => seq),
            )
          const points = [...kept, next]
          const keep = keepOf(points)
          kept = points.filter(({ seq }) => keep.has(seq))
          expect([...keepOf(all)]).toEqual(kept.map(({ seq }) => seq))
        })
      }),
      { numRuns: 150 },
    )
  })

  it('does not let a damaged point change what becomes of the sound ones', () => {
    fc.assert(
      fc.property(fc.array(anyCycle, { minLength: 1, maxLength: 80 }), anyPolicy, (life, policy) => {
        let minutes = 10_000
        const points = life.map(({ gap, marks }, i) => {
          minutes += gap
          return point(i + 1, minutes, { ...marks, pinned: false, inUse: false, suspect: false })
        })
        const sound = points.filter((one) => !one.damaged)
        const kept = (of: readonly RetainablePoint[]) =>
          decideRetention({ points: of, policy })
            .filter(({ seq, keep }) => keep && sound.some((one) => one.seq === seq))
            .map(({ seq }) => seq)
        expect(kept(points)).toEqual(kept(sound))
      }),
      { numRuns: 150 },
    )
  })
})
