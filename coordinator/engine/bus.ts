import type { Clock } from '#shared/clock.ts'

/** "Something changed": wakes every loop that waits. What changed is in the database, so a wake-up too many is harmless. */
export interface Bus {
  readonly version: number
  notify(): void
  /** Resolves true when the version has passed `seen`, false after `timeoutMs` or when the signal aborts. */
  changedSince(seen: number, options: { timeoutMs: number; signal: AbortSignal }): Promise<boolean>
}

export function createBus(clock: Clock): Bus {
  let version = 0
  let waiters = new Set<() => void>()
  return {
    get version() {
      return version
    },
    notify() {
      version += 1
      const woken = waiters
      waiters = new Set()
      for (const wake of woken) wake()
    },
    async changedSince(seen, { timeoutMs, signal }) {
      if (version > seen) return true
      if (signal.aborted) return false
      const timer = new AbortController()
      let wake = () => {}
      const woken = new Promise<void>((resolve) => {
        wake = resolve
        waiters.add(resolve)
      })
      // The sleep ends by an abort when the wake-up comes first; that is no error.
      const slept = clock.sleep(timeoutMs, AbortSignal.any([timer.signal, signal])).catch(() => {})
      await Promise.race([woken, slept])
      waiters.delete(wake)
      timer.abort()
      return version > seen
    },
  }
}
