import fc from 'fast-check'
import { expect, test } from 'vitest'
import { noProgress, type ProgressHistory, secondsLeft, withSample } from './progress-estimate.ts'

const historyOf = (samples: readonly (readonly [number, number])[]): ProgressHistory =>
  samples.reduce((history, [atMs, doneBytes]) => withSample(history, { atMs, doneBytes }), noProgress)

test.each([
  ['nothing is known', [], null],
  [
    'only just begun',
    [
      [0, 0],
      [1000, 10],
    ],
    null,
  ],
  [
    'nothing moves yet',
    [
      [0, 0],
      [60_000, 0],
    ],
    null,
  ],
  [
    'half done in a minute',
    [
      [0, 0],
      [30_000, 25],
      [60_000, 50],
    ],
    60,
  ],
  [
    'all done',
    [
      [0, 0],
      [60_000, 100],
    ],
    0,
  ],
  [
    'more than all: the disk grew',
    [
      [0, 0],
      [60_000, 120],
    ],
    0,
  ],
  [
    'it started over',
    [
      [0, 0],
      [60_000, 90],
      [61_000, 0],
    ],
    null,
  ],
] as const)('%s', (_case, samples, expected) => {
  const history = historyOf(samples)
  expect(secondsLeft(history, 100, history.samples.at(-1)?.atMs ?? 0)).toEqual(
    expected === 60 ? expect.closeTo(60) : expected,
  )
})

test('whatever comes in, the answer is null or a number that is not negative', () => {
  const sample = fc.record({ atMs: fc.nat(1e9), doneBytes: fc.nat(1e9) })
  fc.assert(
    fc.property(fc.array(sample, { maxLength: 400 }), fc.nat(1e9), fc.nat(1e9), (samples, total, now) => {
      const history = samples.reduce(withSample, noProgress)
      expect(history.samples.length).toBeLessThanOrEqual(128)
      const left = secondsLeft(history, total, now)
      if (left !== null) expect(left).toBeGreaterThanOrEqual(0)
      if (left !== null) expect(Number.isFinite(left)).toBe(true)
    }),
  )
})

test('at a steady speed with noise it is right within a third once a tenth is done, and follows a link that changes', () => {
  // A window of one and a half periods, the half of it as slow as can be, is wrong by a quarter.
  const noises = fc.array(fc.double({ min: 0.5, max: 2, noNaN: true }), { minLength: 20, maxLength: 20 })
  fc.assert(
    fc.property(
      fc.double({ min: 1e3, max: 1e9, noNaN: true }),
      noises,
      fc.double({ min: 0.2, max: 5, noNaN: true }),
      (rate, noise, change) => {
        const mean = noise.reduce((sum, one) => sum + one, 0) / noise.length
        const totalBytes = rate * 1000
        let doneBytes = 0
        let history = withSample(noProgress, { atMs: 0, doneBytes })
        let second = 1
        for (; second <= 500; second++) {
          doneBytes += (rate * (noise[second % 20] ?? 1)) / mean
          history = withSample(history, { atMs: second * 1000, doneBytes })
          if (second < 100) continue
          const truth = (totalBytes - doneBytes) / rate
          expect(secondsLeft(history, totalBytes, second * 1000)).toBeGreaterThan(truth / 1.34)
          expect(secondsLeft(history, totalBytes, second * 1000)).toBeLessThan(truth * 1.34)
        }
        for (const end = second + 200; second < end; second++) {
          doneBytes += rate * change
          history = withSample(history, { atMs: second * 1000, doneBytes })
        }
        const left = secondsLeft(history, 2 * doneBytes, (second - 1) * 1000)
        expect(left).toBeCloseTo(doneBytes / (rate * change), 3)
      },
    ),
    { numRuns: 50 },
  )
})
