import { describe, expect, it } from 'vitest'
import { dataAge } from './health.ts'
import { ofTwins } from './twins.ts'

const hourMs = 3_600_000

describe('two machines with one identity', () => {
  it('one line a server, with the newest sighting', () => {
    const sightings = [
      { server: 'host-a1', atMs: 1_000 },
      { server: 'host-a1', atMs: 61_000 },
      { server: 'host-b1', atMs: 31_000 },
    ]
    expect(ofTwins(sightings, 91_000).map(({ text }) => text.slice(0, 43))).toEqual([
      'two machines run as host-a1, seen 30 s ago:',
      'two machines run as host-b1, seen 60 s ago:',
    ])
    expect(ofTwins([], 91_000)).toEqual([])
  })
})

describe('data age when clocks were wrong', () => {
  const age = (times: {
    capturedAtMs: number
    sourceSkewMs: number
    completedAtMs: number
    targetSkewMs: number
  }) =>
    dataAge({
      nowMs: 100 * hourMs,
      capturedAtMs: times.capturedAtMs,
      sourceSkewMs: times.sourceSkewMs,
      arrival: { completedAtMs: times.completedAtMs, targetSkewMs: times.targetSkewMs },
    })
  const at = 98 * hourMs

  it.each([
    ['both right', at, 0, at, 0],
    ['source ahead', at + 6 * hourMs, 6 * hourMs, at, 0],
    ['source was ahead and was set right since', at + 6 * hourMs, 0, at, 0],
    ['source behind', at - 6 * hourMs, -6 * hourMs, at, 0],
    ['target ahead', at, 0, at + 6 * hourMs, 6 * hourMs],
    ['target went ahead after it completed the point', at, 0, at, 6 * hourMs],
    ['target behind', at, 0, at - 6 * hourMs, -6 * hourMs],
  ])('%s: two hours', (_what, capturedAtMs, sourceSkewMs, completedAtMs, targetSkewMs) => {
    expect(age({ capturedAtMs, sourceSkewMs, completedAtMs, targetSkewMs })).toBe(2 * hourMs)
  })
})
