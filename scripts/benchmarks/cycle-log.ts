/** Copy cycles as somebody saw them from outside. Pure. */
import { round3 } from './statistics.ts'

export interface AckedCycle {
  readonly seq: number
  readonly capturedAtMs: number
  /** When the acknowledgement was seen. */
  readonly ackedAtMs: number
}

export interface CycleSummary {
  readonly cycles: number
  /** Capture to acknowledgement. */
  readonly longestCycleSeconds: number
  /** Between the captures of two acknowledged cycles. */
  readonly longestGapSeconds: number
}

/** The first cycle is where the watch began: its acknowledgement may be much older than its being seen. */
export function cycleSummary(cycles: readonly AckedCycle[]): CycleSummary {
  const watched = cycles.slice(1)
  const longest = (values: readonly number[]) => round3(Math.max(0, ...values) / 1000)
  return {
    cycles: watched.length,
    longestCycleSeconds: longest(watched.map((cycle) => cycle.ackedAtMs - cycle.capturedAtMs)),
    longestGapSeconds: longest(
      watched.map((cycle, index) => cycle.capturedAtMs - (cycles[index]?.capturedAtMs ?? cycle.capturedAtMs)),
    ),
  }
}
