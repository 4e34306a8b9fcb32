/**
 * When the next copy cycle is due. Intervals run on the monotonic clock, so a wall clock that jumps by hours neither
 * stalls a VM nor sets off a burst; the wall clock only tells, after a restart, how much of the interval is over.
 */
export function firstCycleDelayMs(input: {
  readonly lastCapturedAtMs: number | null
  readonly nowMs: number
  readonly frequencyMs: number
}): number {
  if (input.lastCapturedAtMs === null) return 0
  const elapsedMs = input.nowMs - input.lastCapturedAtMs
  // A capture in the future means that the clock was set back: its age says nothing.
  if (elapsedMs < 0) return 0
  return Math.max(0, input.frequencyMs - elapsedMs)
}

/** For how long the VM has written unseen when the agent starts: the first cycle of a life finds the changes of all that time. */
export function unseenMs(input: {
  readonly lastCapturedAtMs: number | null
  readonly nowMs: number
  readonly frequencyMs: number
}): number {
  const elapsedMs = input.nowMs - (input.lastCapturedAtMs ?? Number.POSITIVE_INFINITY)
  // Never captured, or a clock that was set back: nothing better is known than the interval.
  return elapsedMs < 0 ? input.frequencyMs : elapsedMs
}

/** Measured from the start of the last cycle; a cycle that took longer than the interval is followed by one, not by all it missed. */
export function nextCycleDelayMs(input: {
  readonly lastStartMonotonicMs: number
  readonly nowMonotonicMs: number
  readonly frequencyMs: number
}): number {
  return Math.max(0, input.lastStartMonotonicMs + input.frequencyMs - input.nowMonotonicMs)
}
