export interface FailureLimits {
  readonly maxFailures: number
  readonly failureWindowMs: number
  readonly maxTrackedAddresses: number
}

/** Counts failures per address in windows of fixed length. Bounded: the address seen first is forgotten first. */
export class FailureLimiter {
  readonly #limits: FailureLimits
  readonly #windows = new Map<string, { startMs: number; failures: number }>()

  constructor(limits: FailureLimits) {
    this.#limits = limits
  }

  isBlocked(address: string, nowMs: number): boolean {
    const window = this.#current(address, nowMs)
    return window !== undefined && window.failures >= this.#limits.maxFailures
  }

  /** True for the failure that used up the last try of the window: the one worth a line in the log. */
  fail(address: string, nowMs: number): boolean {
    const window = this.#current(address, nowMs) ?? this.#open(address, nowMs)
    window.failures += 1
    return window.failures === this.#limits.maxFailures
  }

  #current(address: string, nowMs: number) {
    const window = this.#windows.get(address)
    if (window && nowMs - window.startMs < this.#limits.failureWindowMs) return window
    this.#windows.delete(address)
    return undefined
  }

  #open(address: string, nowMs: number) {
    const [oldest] = this.#windows.keys()
    if (oldest !== undefined && this.#windows.size >= this.#limits.maxTrackedAddresses)
      this.#windows.delete(oldest)
    const window = { startMs: nowMs, failures: 0 }
    this.#windows.set(address, window)
    return window
  }
}
