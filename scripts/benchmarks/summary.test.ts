import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { atLeast, atMost, speedMeasures } from './measures.ts'
import { median } from './statistics.ts'
import { ratiosOf, resultsOf } from './summary.ts'
import { throttledWireMeasures } from './throttled-wire.ts'
import type { Row } from './workload.ts'

const row = (changes: Partial<Row>): Row => ({
  workload: 'W2',
  tool: 'hotsite',
  encrypted: true,
  seconds: 1,
  cpuSeconds: 1,
  wireBytes: 1_000_000,
  dataBytes: 2_000_000,
  compressedBytes: 1_000_000,
  identical: true,
  ...changes,
})

describe('median', () => {
  test.each([
    [[], 0],
    [[4], 4],
    [[9, 1, 5], 5],
    [[4, 1, 3, 2], 2.5],
  ])('of %j is %d', (values, expected) => expect(median(values)).toBe(expected))

  test('as many values lie above as below, in whatever order they come', () => {
    fc.assert(
      fc.property(fc.array(fc.integer(), { minLength: 1, maxLength: 20 }), (values) => {
        const middle = median(values)
        expect(values.filter((value) => value < middle).length).toBeLessThanOrEqual(values.length / 2)
        expect(values.filter((value) => value > middle).length).toBeLessThanOrEqual(values.length / 2)
        expect(median(values.toReversed())).toBe(middle)
      }),
    )
  })
})

describe('results', () => {
  test('medians and ranges over the rounds, one result for each workload and tool', () => {
    const rows = [3, 1, 2].map((seconds) => row({ seconds, cpuSeconds: seconds * 2 }))
    const [result, ...others] = resultsOf(rows)
    expect(others).toEqual([])
    expect(result).toMatchObject({
      rounds: 3,
      seconds: 2,
      secondsMin: 1,
      secondsMax: 3,
      cpuSeconds: 4,
      mbPerSecond: 1,
      identical: true,
    })
  })

  test('one copy in three that differs is not identical', () => {
    const rows = [row({}), row({ identical: false }), row({})]
    expect(resultsOf(rows)[0]?.identical).toBe(false)
  })

  test('bytes on the wire stand against the compressed blocks', () => {
    const overhead = (wireBytes: number | null, compressedBytes = 1_000_000) =>
      resultsOf([row({ wireBytes, compressedBytes })])[0]?.wireOverheadPercent
    expect(overhead(1_000_000)).toBe(0)
    expect(overhead(1_020_000)).toBe(2)
    expect(overhead(900_000)).toBe(-10)
    expect(overhead(null)).toBeNull()
    expect(overhead(1, 0)).toBeNull()
  })

  test('and against the blocks as they are', () => {
    const overRaw = (wireBytes: number | null) =>
      resultsOf([row({ wireBytes, dataBytes: 2_000_000 })])[0]?.wireOverRawPercent
    expect(overRaw(2_020_000)).toBe(1)
    expect(overRaw(1_000_000)).toBe(-50)
    expect(overRaw(null)).toBeNull()
  })

  test('in the order of the workloads, the fastest first', () => {
    const rows = [
      row({ workload: 'W3', tool: 'bare' }),
      row({ workload: 'W1-plain', tool: 'cp', seconds: 2 }),
      row({ workload: 'W1-plain', tool: 'nbdcopy', seconds: 1 }),
      row({ workload: 'W1-encrypted', seconds: 9 }),
    ]
    expect(resultsOf(rows).map(({ tool }) => tool)).toEqual(['hotsite', 'nbdcopy', 'cp', 'bare'])
  })
})

describe('ratios', () => {
  test('Hotsite against every other tool of the same workload', () => {
    const results = resultsOf([
      row({ seconds: 2, cpuSeconds: 1 }),
      row({ tool: 'rsync-ssh', seconds: 6, cpuSeconds: 4 }),
      row({ workload: 'W3', tool: 'bare', seconds: 1 }),
    ])
    expect(ratiosOf(results)).toEqual([
      { workload: 'W2', against: 'rsync-ssh', timesAsFast: 3, cpuShare: 0.25 },
    ])
  })
})

describe('measures', () => {
  test('bounds belong to what is wanted; nothing measured is neither ok nor short', () => {
    expect(atLeast('x', 2, 2)).toEqual({ name: 'x', wanted: '>= 2', got: 2, ok: true })
    expect(atLeast('x', 2, 1.999).ok).toBe(false)
    expect(atMost('x', 2, 2).ok).toBe(true)
    expect(atMost('x', 2, 2.001).ok).toBe(false)
    expect(atMost('x', 2, undefined)).toEqual({ name: 'x', wanted: '<= 2', got: null, ok: null })
  })

  const measured = (rows: readonly Row[]) => {
    const results = resultsOf(rows)
    const measures = speedMeasures(results, ratiosOf(results))
    return (name: string) => measures.find((measure) => measure.name.startsWith(name))
  }

  test('the fastest peer that encrypts is the one with the smallest ratio', () => {
    const find = measured([
      row({ workload: 'W1-encrypted', seconds: 2 }),
      row({ workload: 'W1-plain', seconds: 2 }),
      row({ workload: 'W1-encrypted', tool: 'rsync-ssh', seconds: 6 }),
      row({ workload: 'W1-encrypted', tool: 'nbdcopy-tls', seconds: 1.6 }),
      row({ workload: 'W1-encrypted', tool: 'nbdcopy-push-tls', seconds: 1.2 }),
      row({ workload: 'W1-plain', tool: 'cp', seconds: 0.1 }),
    ])
    expect(find('W1: times as fast as rsync')).toMatchObject({ got: 3, ok: true })
    expect(find('W1: times as fast as nbdcopy')).toMatchObject({ got: 0.8, ok: true })
    expect(find('W1: times as fast as the fastest')).toMatchObject({ got: 0.6, ok: false })
  })

  test('W2 counts time and CPU, W3 three peers, and each delta its bytes', () => {
    const find = measured([
      row({ seconds: 1, cpuSeconds: 3, wireBytes: 2_020_000 }),
      row({ tool: 'rsync-ssh', seconds: 3.5, cpuSeconds: 5 }),
      row({ workload: 'W3', seconds: 1, wireBytes: 4_000_000 }),
      row({ workload: 'W3', tool: 'bare', seconds: 0.45 }),
      row({ workload: 'W3', tool: 'btrfs-send', seconds: 1.2 }),
    ])
    expect(find('W2: times')).toMatchObject({ got: 3.5, ok: true })
    expect(find('W2: CPU')).toMatchObject({ got: 0.6, ok: false })
    expect(find('W2 without')).toMatchObject({ got: 1, ok: true })
    expect(find('W3: times as fast as the bare')).toMatchObject({ got: 0.45, ok: true })
    expect(find('W3: times as fast as btrfs')).toMatchObject({ got: 1.2, ok: false })
    expect(find('W3: times as fast as virtnbdbackup')).toMatchObject({ got: null, ok: null })
    expect(find('W3 without')).toMatchObject({ got: 100, ok: false })
  })
})

test('under a throttle the bytes stand against the compressed blocks', () => {
  const figure = (workload: 'W1' | 'W2' | 'W3', wireBytes: number) => ({
    figure: 'throttled-wire' as const,
    workload,
    throttleBytesPerSecond: 1,
    seconds: 1,
    wireBytes,
    dataBytes: 2_000_000,
    compressedBytes: 1_000_000,
    identical: true,
  })
  const measures = throttledWireMeasures([figure('W2', 1_015_000), figure('W3', 1_030_000)])
  expect(measures.map(({ got, ok }) => ({ got, ok }))).toEqual([
    { got: null, ok: null },
    { got: 1.5, ok: true },
    { got: 3, ok: false },
  ])
})
