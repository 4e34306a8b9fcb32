/**
 * Token bucket, pure: time comes in. The level may go below zero, so a batch larger than the bucket passes and is
 * paid for afterwards: the average keeps to the rate whatever the batch size is. What is owed is owed at the rate of
 * the moment: a rate that changes is in force for the rest of a wait.
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

/** The bucket after the time since it was last looked at. Without a limit nothing is owed. */
export function refill(bucket: TokenBucket, rate: ThrottleRate, nowMonotonicMs: number): TokenBucket {
  if (rate.bytesPerSecond === 0) return { levelBytes: 0, atMonotonicMs: nowMonotonicMs }
  const elapsedMs = Math.max(0, nowMonotonicMs - bucket.atMonotonicMs)
  const capacityBytes = (rate.bytesPerSecond * rate.burstMs) / 1000
  const levelBytes = bucket.levelBytes + (rate.bytesPerSecond * elapsedMs) / 1000
  return { levelBytes: Math.min(capacityBytes, levelBytes), atMonotonicMs: nowMonotonicMs }
}

/** How long until nothing is owed, if the rate stays. */
export function debtMs({ levelBytes }: TokenBucket, { bytesPerSecond }: ThrottleRate): number {
  return levelBytes >= 0 || bytesPerSecond === 0 ? 0 : (-levelBytes * 1000) / bytesPerSecond
}

/** Takes `bytes` at `nowMonotonicMs` and says how long to wait before sending them. */
export function takeTokens(
  bucket: TokenBucket,
  bytes: number,
  rate: ThrottleRate,
  nowMonotonicMs: number,
): { readonly bucket: TokenBucket; readonly waitMs: number } {
  const refilled = refill(bucket, rate, nowMonotonicMs)
  if (rate.bytesPerSecond === 0) return { bucket: refilled, waitMs: 0 }
  const taken = { ...refilled, levelBytes: refilled.levelBytes - bytes }
  return { bucket: taken, waitMs: debtMs(taken, rate) }
}
