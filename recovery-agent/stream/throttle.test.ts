import fc from 'fast-check'
import { expect, test } from 'vitest'
import { debtMs, emptyBucket, refill, takeTokens } from './throttle.ts'

const rateOf = (bytesPerSecond: number) => ({ bytesPerSecond, burstMs: 250 })

test('without a rate nothing waits', () => {
  expect(takeTokens(emptyBucket, 1e12, rateOf(0), 5).waitMs).toBe(0)
})

test('whatever the batches and pauses are, the average never exceeds the rate by more than a burst and a batch', () => {
  const batch = fc.record({ bytes: fc.integer({ min: 1, max: 1 << 20 }), pauseMs: fc.nat(300) })
  fc.assert(
    fc.property(
      fc.array(batch, { minLength: 1, maxLength: 60 }),
      fc.integer({ min: 1e4, max: 1e8 }),
      (batches, rate) => {
        let bucket = { levelBytes: 0, atMonotonicMs: 1000 }
        let now = 1000
        let sent = 0
        for (const { bytes, pauseMs } of batches) {
          now += pauseMs
          const taken = takeTokens(bucket, bytes, rateOf(rate), now)
          bucket = taken.bucket
          now += taken.waitMs
          sent += bytes
          expect(sent).toBeLessThanOrEqual(((now - 1000) * rate) / 1000 + rate * 0.25 + 1)
        }
      },
    ),
  )
})

test('a rate that changes is in force for the rest of a wait', () => {
  const { bucket, waitMs } = takeTokens({ levelBytes: 0, atMonotonicMs: 0 }, 10_000, rateOf(1_000), 0)
  expect(waitMs).toBe(10_000)
  const half = refill(bucket, rateOf(1_000), 5_000)
  expect(debtMs(half, rateOf(1_000))).toBe(5_000)
  expect(debtMs(half, rateOf(50_000))).toBe(100)
  expect(debtMs(half, rateOf(0))).toBe(0)
  // A limit that comes back does not claim what was sent without one.
  expect(debtMs(refill(half, rateOf(0), 6_000), rateOf(1_000))).toBe(0)
})
