/**
 * When a silent peer counts as gone. Counted in intervals seen by this process rather than by the clock, so that a
 * suspended process or a clock jump does not cut healthy channels. Both sides send a ping every interval whatever they
 * receive; silence is not held against the peer while the reader here has paused the socket.
 */
export interface SilenceCount {
  received(): void
  /** One interval has passed. True: the peer has been silent for too long. */
  intervalPassed(pausedByUs: boolean): boolean
}

export function silenceCount(maxSilentIntervals: number): SilenceCount {
  let silentIntervals = 0
  return {
    received() {
      silentIntervals = 0
    },
    intervalPassed(pausedByUs) {
      if (pausedByUs) silentIntervals = 0
      else silentIntervals += 1
      return silentIntervals > maxSilentIntervals
    },
  }
}
