import fc from 'fast-check'
import { expect, test } from 'vitest'
import { seededRng } from '../rng.ts'
import { backoffMs, defaultBackoff } from './keep-connected.ts'

test('each failure doubles the bound from 1 s to 60 s, and the pause is spread over the whole of it', () => {
  const almostOne = { next: () => 1 - 2 ** -40 }
  expect(
    [0, 1, 2, 3, 4, 5, 6, 7, 1000].map((failures) => backoffMs(defaultBackoff, failures, almostOne)),
  ).toEqual([1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000, 60000])
  expect(backoffMs(defaultBackoff, 5, { next: () => 0 })).toBe(0)
  const rng = seededRng(1)
  const pauses = Array.from({ length: 1000 }, () => backoffMs(defaultBackoff, 10, rng))
  for (const [from, to] of [
    [0, 15000],
    [15000, 30000],
    [30000, 45000],
    [45000, 60000],
  ] as const)
    expect(pauses.filter((pause) => pause >= from && pause < to).length).toBeGreaterThan(200)
})

test('the pause is never beyond the longest', () => {
  fc.assert(
    fc.property(fc.nat(), fc.integer(), (failures, seed) => {
      const pause = backoffMs(defaultBackoff, failures, seededRng(seed))
      return pause >= 0 && pause <= defaultBackoff.maxMs
    }),
  )
})
