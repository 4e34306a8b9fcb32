/**
 * Token bucket, pure: time comes in. The level may go below zero, so a batch larger than the bucket passes and is
 * paid for afterwards: the average keeps to the rate whatever the batch size is.
 */
export interface TokenBucket {
  readonly levelBytes: number
  readonly atMonotonicMs: number
}

export interface ThrottleRate {
  /** 0: no limit. */
  readonly bytesPerSecond: number
  readonly burstMs: number
}

export const emptyBucket: TokenBucket = { levelBytes: 0, atMonotonicMs: 0 }

/** Takes `bytes` at `nowMonotonicMs` and says how long to wait before sending them. */
export function takeTokens(
  bucket: TokenBucket,
  bytes: number,
  rate: ThrottleRate,
  nowMonotonicMs: number,
): { readonly bucket: TokenBucket; readonly waitMs: number } {
  if (rate.bytesPerSecond === 0) return { bucket, waitMs: 0 }
  const elapsedMs = Math.max(0, nowMonotonicMs - bucket.atMonotonicMs)
  const capacityBytes = (rate.bytesPerSecond * rate.burstMs) / 1000
  const refilled = Math.min(capacityBytes, bucket.levelBytes + (rate.bytesPerSecond * elapsedMs) / 1000)
  const levelBytes = refilled - bytes
  const waitMs = levelBytes >= 0 ? 0 : (-levelBytes * 1000) / rate.bytesPerSecond
  return { bucket: { levelBytes, atMonotonicMs: nowMonotonicMs }, waitMs }
}
