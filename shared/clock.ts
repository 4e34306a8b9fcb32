import { setTimeout as sleepFor } from 'node:timers/promises'

/** The only source of time. Everything else takes `now` as an argument or a Clock. */
export interface Clock {
  /** Wall clock, milliseconds since 1970. May jump; never used for ordering (I14). */
  now(): number
  /** Milliseconds that only ever grow; for elapsed time and timeouts. */
  monotonicMs(): number
  /** Resolves after `ms`; rejects with the signal's reason when aborted. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonicMs: () => performance.now(),
  async sleep(ms, signal) {
    try {
      await sleepFor(ms, undefined, signal ? { signal } : {})
    } catch (error) {
      // Node rejects with an AbortError of its own; who waits wants to know why.
      signal?.throwIfAborted()
      throw error
    }
  },
}
