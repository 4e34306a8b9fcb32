import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  debtMs,
  LONG_CHAIN,
  MAX_CHAIN,
  MAX_SLOWDOWN,
  type MergePressure,
  MergeSpeed,
  slowDownFor,
} from './merge-pace.ts'

const MiB = 1 << 20
const calm: MergePressure = {
  debtBytes: 0,
  mergeBytesPerSecond: 100 * MiB,
  frequencyMs: 30_000,
  chainLength: 16,
  dueLayers: 0,
  slowedByMs: 0,
}
/** At 100 MiB/s. */
const seconds = (count: number) => ({ debtBytes: count * 100 * MiB })

describe('the pace that merges ask for', () => {
  it.each<[string, Partial<MergePressure>, number]>([
    ['no debt', {}, 0],
    ['half a cycle of debt', seconds(15), 0],
    ['a little more than half a cycle', seconds(16), 7500],
    ['a whole cycle', seconds(30), 15_000],
    ['three cycles', seconds(90), 75_000],
    ['an hour', seconds(3600), 120_000],
    ['the same debt on a disk twice as fast', { ...seconds(30), mergeBytesPerSecond: 200 * MiB }, 0],
    ['the same debt at a rarer frequency', { ...seconds(30), frequencyMs: 300_000 }, 0],
    ['nothing measured yet', { ...seconds(10), mergeBytesPerSecond: null }, 7500],
    ['a long chain that nothing is due of', { chainLength: 190 }, 0],
    ['a long chain with layers that are due', { chainLength: 120, dueLayers: 30 }, 30_000],
    ['a chain that is full', { chainLength: MAX_CHAIN, dueLayers: 200 }, 120_000],
    ['slowed, and the debt is almost as low as it may be', { ...seconds(14), slowedByMs: 15_000 }, 7500],
    ['slowed, and the debt is low', { ...seconds(7), slowedByMs: 15_000 }, 0],
    ['slowed, and a step less would do', { ...seconds(37), slowedByMs: 30_000 }, 30_000],
    ['slowed, and much less would do', { ...seconds(20), slowedByMs: 30_000 }, 7500],
  ])('%s', (_, pressure, slowMs) => {
    expect(slowDownFor({ ...calm, ...pressure })).toBe(slowMs)
  })

  const anything = fc.record({
    debtBytes: fc.integer({ min: 0, max: 2 ** 44 }),
    mergeBytesPerSecond: fc.option(fc.integer({ min: 0, max: 2 ** 31 })),
    frequencyMs: fc.constantFrom(30_000, 300_000, 900_000),
    chainLength: fc.integer({ min: 1, max: MAX_CHAIN + 10 }),
    dueLayers: fc.integer({ min: 0, max: 100 }),
    slowedByMs: fc.integer({ min: 0, max: 3_600_000 }),
  })

  it('is bounded, whole milliseconds, never less for more debt, and nothing where nothing is due', () => {
    fc.assert(
      fc.property(anything, fc.integer({ min: 0, max: 2 ** 40 }), (pressure, more) => {
        const slowMs = slowDownFor({ ...pressure, slowedByMs: 0 })
        expect(Number.isInteger(slowMs)).toBe(true)
        expect(slowMs).toBeGreaterThanOrEqual(0)
        expect(slowMs).toBeLessThanOrEqual(pressure.frequencyMs * (MAX_SLOWDOWN + 1))
        const worse = { ...pressure, slowedByMs: 0, debtBytes: pressure.debtBytes + more }
        expect(slowDownFor(worse)).toBeGreaterThanOrEqual(slowMs)
        const isShort = pressure.chainLength <= LONG_CHAIN
        if (isShort && debtMs(pressure) <= pressure.frequencyMs / 4) expect(slowDownFor(pressure)).toBe(0)
      }),
    )
  })

  it('lets a target catch up that merges at any speed above what a cycle brings, and never lets go in between', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 200 }),
        fc.integer({ min: 20, max: 400 }),
        (cycleMiB, speedMiB) => {
          let debtBytes = 50 * 1024 * MiB
          let slowedByMs = 0
          for (let cycle = 0; cycle < 4000; cycle++) {
            const pressure = { ...calm, debtBytes, mergeBytesPerSecond: speedMiB * MiB, slowedByMs }
            slowedByMs = slowDownFor(pressure)
            const mergedBytes = ((30_000 + slowedByMs) / 1000) * speedMiB * MiB
            debtBytes = Math.max(0, debtBytes - mergedBytes) + cycleMiB * MiB
          }
          expect(debtMs({ debtBytes, mergeBytesPerSecond: speedMiB * MiB })).toBeLessThanOrEqual(30_000)
        },
      ),
      { numRuns: 30 },
    )
  })
})

it('the speed of merges follows what slices did, slowly, and ignores those that copied nothing', () => {
  const speed = new MergeSpeed()
  speed.add({ copiedBytes: 0, elapsedMs: 25 })
  expect(speed.bytesPerSecond).toBeNull()
  speed.add({ copiedBytes: 8 * MiB, elapsedMs: 80 })
  expect(speed.bytesPerSecond).toBe(100 * MiB)
  speed.add({ copiedBytes: 8 * MiB, elapsedMs: 800 })
  expect(speed.bytesPerSecond).toBeGreaterThan(90 * MiB)
  for (let i = 0; i < 200; i++) speed.add({ copiedBytes: 8 * MiB, elapsedMs: 800 })
  expect(speed.bytesPerSecond).toBeLessThan(12 * MiB)
})
