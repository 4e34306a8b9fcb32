import fc from 'fast-check'
import { expect, test } from 'vitest'
import { emptyBucket, takeTokens } from './throttle.ts'

test('without a rate nothing waits', () => {
  expect(takeTokens(emptyBucket, 1e12, { bytesPerSecond: 0, burstMs: 250 }, 5).waitMs).toBe(0)
})

test('whatever the batches and pauses are, the average never exceeds the rate by more than a burst and a batch', () => {
  const batch = fc.record({ bytes: fc.integer({ min: 1, max: 1 << 20 }), pauseMs: fc.nat(300) })
  fc.assert(
    fc.property(
      fc.array(batch, { minLength: 1, maxLength: 60 }),
      fc.integer({ min: 1e4, max: 1e8 }),
      (batches, rate) => {
        const throttle = { bytesPerSecond: rate, burstMs: 250 }
        let bucket = { levelBytes: 0, atMonotonicMs: 1000 }
        let now = 1000
        let sent = 0
        for (const { bytes, pauseMs } of batches) {
          now += pauseMs
          const taken = takeTokens(bucket, bytes, throttle, now)
          bucket = taken.bucket
          now += taken.waitMs
          sent += bytes
          expect(sent).toBeLessThanOrEqual(((now - 1000) * rate) / 1000 + rate * 0.25 + 1)
        }
      },
    ),
  )
})
