import { describe, expect, it } from 'vitest'
import { decideRetention, type RetainablePoint, type RetentionPolicy } from './retention.ts'
import { application, hourly, hourMs, point, simulate } from './testing/points.ts'

function reasons(points: readonly RetainablePoint[], policy: RetentionPolicy): string[] {
  return decideRetention({ points, policy }).map(
    ({ seq, keep, reason }) => `${seq} ${keep ? 'keep' : 'drop'} ${reason}`,
  )
}

const suspect = { suspect: true }
const damaged = { damaged: true }

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

  it('puts an application-consistent point in the place of a crash-consistent one it is too close to', () => {
    const points = [
      point(1, 0),
      point(2, 65),
      point(3, 80, application),
      point(4, 125, application),
      point(5, 140),
      point(6, 150),
    ]
    expect(reasons(points, hourly(15, 1))).toEqual([
      '1 keep spaced',
      '2 drop too-close',
      '3 keep spaced',
      '4 drop too-close',
      '5 keep spaced',
      '6 keep newest',
    ])
    expect(reasons(points, hourly(15))[2]).toBe('3 drop too-close')
  })

  it('does not care in which order points are given', () => {
    const points = [point(3, 60), point(1, 0), point(2, 30)]
    expect(reasons(points, hourly(1))).toEqual(['1 keep spaced', '2 drop too-close', '3 keep newest'])
  })
})

describe('suspect points', () => {
  const latestOnly = hourly(0)

  it('stay with the one before them, whatever the policy', () => {
    const points = [point(1, 0), point(2, 5), point(3, 10, suspect), point(4, 15, suspect), point(5, 20)]
    expect(reasons(points, latestOnly)).toEqual([
      '1 drop over-amount',
      '2 keep before-suspect',
      '3 keep suspect',
      '4 drop too-close',
      '5 keep newest',
    ])
  })

  it('hold the last sound point nobody doubts, not a damaged one', () => {
    const points = [point(1, 0), point(2, 5, damaged), point(3, 10, suspect), point(4, 15)]
    expect(reasons(points, latestOnly)).toEqual([
      '1 keep before-suspect',
      '2 drop damaged',
      '3 keep suspect',
      '4 keep newest',
    ])
  })

  it('hold no more than three predecessors, the newest, and none for longer than two weeks', () => {
    const alternating = [...Array(10).keys()].map((i) => point(i + 1, i * 5, i % 2 ? suspect : {}))
    expect(reasons(alternating, latestOnly).filter((line) => line.includes('before-suspect'))).toEqual([
      '5 keep before-suspect',
      '7 keep before-suspect',
      '9 keep before-suspect',
    ])
    const dayMinutes = 24 * 60
    const old = [point(1, 0), point(2, 5, suspect), point(3, 14 * dayMinutes + 5)]
    expect(reasons(old, latestOnly)[0]).toBe('1 keep before-suspect')
    const older = [...old, point(4, 14 * dayMinutes + 6)]
    expect(reasons(older, latestOnly).slice(0, 2)).toEqual(['1 drop over-amount', '2 drop too-close'])
  })

  it('hold nothing once the hint is cleared, or when nothing came before them', () => {
    expect(reasons([point(1, 0), point(2, 5), point(3, 10)], latestOnly)[0]).toBe('1 drop over-amount')
    expect(reasons([point(1, 0, suspect), point(2, 5)], latestOnly)[0]).toBe('1 drop over-amount')
  })
})

describe('damaged points', () => {
  it('are not counted, and stay only while they would if they were sound', () => {
    const points = [0, 60, 120, 180, 240].map((minutes, i) =>
      point(i + 1, minutes, i === 2 || i === 0 ? damaged : {}),
    )
    expect(reasons(points, hourly(2))).toEqual([
      '1 drop damaged',
      '2 keep spaced',
      '3 keep may-heal',
      '4 keep spaced',
      '5 keep newest',
    ])
  })

  it('never cost the newest sound one', () => {
    const points = [point(1, 0), point(2, 5), point(3, 10, damaged), point(4, 15, damaged)]
    expect(reasons(points, hourly(0))).toEqual([
      '1 drop over-amount',
      '2 keep newest-sound',
      '3 drop damaged',
      '4 keep newest',
    ])
  })

  it('which are all of them, as after one bad block under everything, go by the ordinary rule', () => {
    const points = [0, 60, 90, 120].map((minutes, i) => point(i + 1, minutes, damaged))
    expect(reasons(points, hourly(1))).toEqual([
      '1 drop damaged',
      '2 keep may-heal',
      '3 drop damaged',
      '4 keep newest',
    ])
  })
})

const daily = (
  copyFrequencySeconds: number,
  retentionHours = 24,
  appConsistentHours = 0,
): RetentionPolicy => ({
  kind: 'time',
  retentionHours,
  copyFrequencySeconds,
  appConsistentHours,
})

describe('retention by time', () => {
  it('keeps the latest only with no hours', () => {
    expect(reasons([point(1, 0), point(2, 1)], daily(30, 0))).toEqual(['1 drop over-time', '2 keep newest'])
  })

  it('keeps every point of the fine window, and then the last of each hour', () => {
    const points = [...Array(14).keys()].map((i) => point(i + 1, i * 15))
    expect(reasons(points, daily(900))).toEqual([
      '1 drop thinned',
      '2 drop thinned',
      '3 drop thinned',
      '4 keep last-of-hour',
      '5 drop thinned',
      '6 drop thinned',
      '7 drop thinned',
      '8 keep last-of-hour',
      ...[9, 10, 11, 12, 13].map((seq) => `${seq} keep fine-window`),
      '14 keep newest',
    ])
  })

  it('lets the application-consistent point stand for its hour where the policy asks for them', () => {
    const points = [...Array(14).keys()].map((i) => point(i + 1, i * 15, i === 2 ? application : {}))
    const kept = reasons(points, daily(900, 24, 2)).filter((line) => line.includes('last-of-hour'))
    expect(kept).toEqual(['3 keep last-of-hour', '8 keep last-of-hour'])
  })

  it.each([
    [30, 180],
    [300, 18],
    [900, 6],
  ])(
    'keeps %i s copies of a simulated week: %i in the fine window, one for each hour of the day',
    (s, fine) => {
      const cycles = new Array<number>((7 * 24 * 3600) / s).fill(s / 60)
      const kept = simulate(cycles, daily(s)).at(-1) ?? []
      const coarse = kept.slice(0, -fine)
      const newestHour = Math.floor((kept.at(-1)?.capturedAtMs ?? 0) / hourMs)
      const hours = kept.map(({ capturedAtMs }) => newestHour - Math.floor(capturedAtMs / hourMs))
      expect([...new Set(hours)].sort((a, b) => a - b)).toEqual([...Array(25).keys()])
      expect(new Set(coarse.map(({ capturedAtMs }) => Math.floor(capturedAtMs / hourMs))).size).toBe(
        coarse.length,
      )
      // The fine window reaches into two or three hours, some of which have no other point.
      expect(kept.length).toBeLessThanOrEqual(fine + 24)
      expect(kept.length).toBeGreaterThanOrEqual(fine + 22)
    },
  )

  it('survives a clock that was a year ahead for one copy, and one that was set back', () => {
    const year = 365 * 24 * 60
    const cycles = [...new Array<number>(60).fill(15), year, -year, ...new Array<number>(20).fill(15)]
    const before = simulate(cycles.slice(0, 60), daily(900)).at(-1) ?? []
    const after = simulate(cycles, daily(900)).at(-1) ?? []
    const lost = before.filter((old) => old.seq <= 54 && !after.some(({ seq }) => seq === old.seq))
    expect(lost).toEqual([])
  })
})
