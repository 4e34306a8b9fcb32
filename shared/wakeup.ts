import type { Clock } from './clock.ts'

/**
 * A condition variable: `while (!ready()) await wakeup.next(signal)`. Nothing is lost between the check and the wait,
 * because both run in one turn of the event loop.
 */
export class Wakeup {
  readonly #waiters = new Set<() => void>()

  notify(): void {
    const waiters = [...this.#waiters]
    this.#waiters.clear()
    for (const wake of waiters) wake()
  }

  /** Resolves at the next `notify`; rejects with the signal's reason. */
  next(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason)
      const onAbort = () => {
        this.#waiters.delete(wake)
        reject(signal.reason)
      }
      const wake = () => {
        signal.removeEventListener('abort', onAbort)
        resolve()
      }
      signal.addEventListener('abort', onAbort, { once: true })
      this.#waiters.add(wake)
    })
  }

  /** Resolves at the next `notify` or after `ms`, whichever is first; rejects with the signal's reason. */
  async nextOrAfter(clock: Clock, ms: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    const both = new AbortController()
    const either = AbortSignal.any([signal, both.signal])
    try {
      await Promise.race([this.next(either), clock.sleep(Math.max(0, ms), either)])
    } finally {
      // The loser's rejection belongs to nobody: Promise.race has already subscribed to it.
      both.abort(new Error('the other one was first'))
    }
  }
}
