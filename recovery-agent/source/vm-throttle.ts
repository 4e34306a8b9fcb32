import type { ReplicationPolicy } from '#shared/messages/policy.ts'
import { nextRateChange, rateInForce } from '#shared/policy/timetable.ts'
import { limits } from '../limits.ts'
import { debtMs, emptyBucket, refill, type ThrottleRate, takeTokens } from '../stream/throttle.ts'
import type { Source } from './source.ts'

interface InForce {
  readonly policy: ReplicationPolicy
  readonly sinceMs: number
  readonly untilMs: number
  readonly bytesPerSecond: number
}

/**
 * What one VM may put on the wire, by the timetable of its policy. A rate that changes, by the clock or by a new policy,
 * is in force at once, also for a batch that waits already. Held by the VM, not by a transfer: the end of a delta is no
 * fresh start.
 */
export class VmThrottle {
  readonly #source: Source
  #bucket = emptyBucket
  #inForce: InForce | undefined

  constructor(source: Source) {
    this.#source = source
  }

  /** In force now; 0: no limit. */
  get bytesPerSecond(): number {
    return this.#rate().bytesPerSecond
  }

  /** Waits until `bytes` may go. Rejects with the signal's reason. */
  async pass(bytes: number, signal: AbortSignal): Promise<void> {
    const { clock } = this.#source.deps
    this.#bucket = takeTokens(this.#bucket, bytes, this.#rate(), clock.monotonicMs()).bucket
    for (;;) {
      const seen = this.#source.version
      const rate = this.#rate()
      this.#bucket = refill(this.#bucket, rate, clock.monotonicMs())
      const waitMs = debtMs(this.#bucket, rate)
      if (waitMs <= 0) return
      const changesInMs = (this.#inForce?.untilMs ?? 0) - clock.now()
      const lookInMs = Math.min(Math.ceil(waitMs), Math.max(1, changesInMs), limits.timetableLookMs)
      await this.#source.changeOrAfter(seen, lookInMs, signal)
    }
  }

  /** Looked up in the timetable only when the policy changed or its time is over: it costs more than a batch. */
  #rate(): ThrottleRate {
    const { policy } = this.#source.record
    const nowMs = this.#source.deps.clock.now()
    const known = this.#inForce
    // The wall clock may have been set back.
    if (known?.policy !== policy || nowMs < known.sinceMs || nowMs >= known.untilMs) {
      const offsetAt = this.#source.offsetAt
      const untilMs = nextRateChange(policy, nowMs, offsetAt)?.atMs ?? Number.POSITIVE_INFINITY
      const bytesPerSecond = rateInForce(policy, nowMs, offsetAt)
      this.#inForce = { policy, sinceMs: nowMs, untilMs, bytesPerSecond }
    }
    return { bytesPerSecond: this.#inForce?.bytesPerSecond ?? 0, burstMs: limits.throttleBurstMs }
  }
}
