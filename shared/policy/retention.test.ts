import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { decideRetention, type RetainablePoint, type RetentionPolicy } from './retention.ts'

const minuteMs = 60_000
const hourMs = 60 * minuteMs

function point(seq: number, minutes: number, extra: Partial<RetainablePoint> = {}): RetainablePoint {
  return { epoch: 1, seq, capturedAtMs: minutes * minuteMs, pinned: false, inUse: false, ...extra }
}

function reasons(points: readonly RetainablePoint[], policy: RetentionPolicy): string[] {
  return decideRetention({ points, policy }).map(
    ({ seq, keep, reason }) => `${seq} ${keep ? 'keep' : 'drop'} ${reason}`,
  )
}

const hourly = (retentionPoints: number): RetentionPolicy => ({
  retentionPoints,
  retentionIntervalSeconds: 3600,
})

describe('retention by amount', () => {
  it('decides nothing about nothing', () => {
    expect(reasons([], hourly(3))).toEqual([])
  })

  it('keeps the latest only with no additional points', () => {
    expect(reasons([point(1, 0), point(2, 90), point(3, 200)], hourly(0))).toEqual([
      '1 drop over-amount',
      '2 drop over-amount',
      '3 keep newest',
    ])
  })

  it('keeps one an hour behind the newest, and drops what lies between', () => {
    const points = [point(1, 0), point(2, 30), point(3, 60), point(4, 90), point(5, 125), point(6, 130)]
    expect(reasons(points, hourly(2))).toEqual([
      '1 drop over-amount',
      '2 drop too-close',
      '3 keep spaced',
      '4 drop too-close',
      '5 keep spaced',
      '6 keep newest',
    ])
  })

  it('keeps pinned points and points in use beside the amount', () => {
    const points = [point(1, 0, { pinned: true }), point(2, 5, { inUse: true }), point(3, 10), point(4, 15)]
    expect(reasons(points, hourly(0))).toEqual([
      '1 keep pinned',
      '2 keep in-use',
      '3 drop over-amount',
      '4 keep newest',
    ])
  })

  it('keeps the newest by sequence number when a clock jumped back, and goes on from there', () => {
    const points = [point(1, 0), point(2, 600), point(3, 10), point(4, 20), point(5, 75), point(6, 80)]
    expect(reasons(points, hourly(15))).toEqual([
      '1 keep spaced',
      '2 keep spaced',
      '3 keep spaced',
      '4 drop too-close',
      '5 keep spaced',
      '6 keep newest',
    ])
  })

  it('does not care in which order points are given', () => {
    const points = [point(3, 60), point(1, 0), point(2, 30)]
    expect(reasons(points, hourly(1))).toEqual(['1 keep spaced', '2 drop too-close', '3 keep newest'])
  })
})

/** Days of copy cycles, retention applied after each one. Answers what was kept after every cycle. */
function simulate(
  gapsMinutes: readonly number[],
  policy: RetentionPolicy,
  mark: (seq: number) => Partial<RetainablePoint> = () => ({}),
): RetainablePoint[][] {
  let kept: RetainablePoint[] = []
  let minutes = 0
  return gapsMinutes.map((gap, i) => {
    minutes += gap
    const points = [...kept, point(i + 1, minutes, mark(i + 1))]
    const keep = new Set(
      decideRetention({ points, policy })
        .filter((d) => d.keep)
        .map((d) => d.seq),
    )
    kept = points.filter(({ seq }) => keep.has(seq))
    return kept
  })
}

const amounts = fc.constantFrom(0, 1, 3, 15)
const cycles = fc.array(fc.constantFrom(0.5, 5, 5, 5, 15, 15, 240), { minLength: 1, maxLength: 400 })

describe('retention over simulated days', () => {
  it('keeps the newest, never more than the amount beside it, all an interval apart, and nothing changes the second time', () => {
    fc.assert(
      fc.property(cycles, amounts, fc.constantFrom(0, 1800, 3600), (gaps, amount, interval) => {
        const policy = { retentionPoints: amount, retentionIntervalSeconds: interval }
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
