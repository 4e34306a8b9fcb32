import type { Clock } from '#shared/clock.ts'
import type { VmId } from '#shared/ids.ts'
import { limits } from '../limits.ts'
import type { ReplicaState, ScrubSlice } from '../replica/port.ts'

/** A pass is planned to end a little before it has to: some of the time belongs to what is received. */
const PART_OF_TIME = 0.8

interface Turn {
  dueMs: number
  sliceBeganMs: number
  reportedMs: number
}

/**
 * When which replica is read next, so that each is read once within its policy's `proofHours`. What was read sets the
 * pause: as much of the time as it is of all blocks.
 */
export class ScrubTimetable {
  readonly #clock: Clock
  readonly #turns = new Map<VmId, Turn>()
  #hours = new Map<VmId, number>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** undefined: no replica is to be proved. */
  next(
    replicas: readonly Pick<ReplicaState, 'vmId' | 'policy'>[],
  ): { vmId: VmId; waitMs: number } | undefined {
    const now = this.#clock.monotonicMs()
    this.#hours = new Map(
      replicas
        .filter(({ policy }) => policy.proofHours > 0)
        .map(({ vmId, policy }) => [vmId, policy.proofHours]),
    )
    for (const vmId of [...this.#turns.keys()]) if (!this.#hours.has(vmId)) this.#turns.delete(vmId)
    for (const vmId of this.#hours.keys())
      if (!this.#turns.has(vmId)) this.#turns.set(vmId, { dueMs: now, sliceBeganMs: now, reportedMs: now })
    const [first] = [...this.#turns].sort(([, a], [, b]) => a.dueMs - b.dueMs)
    if (!first) return undefined
    const [vmId, turn] = first
    turn.sliceBeganMs = now
    return { vmId, waitMs: Math.max(0, turn.dueMs - now) }
  }

  /** Whether it is time to say how far the proof came. */
  took(vmId: VmId, { checkedBlocks, totalBlocks, passEnded }: ScrubSlice): 'report' | 'quiet' {
    const turn = this.#turns.get(vmId)
    if (!turn) return 'quiet'
    const now = this.#clock.monotonicMs()
    const shareMs =
      (checkedBlocks / Math.max(1, totalBlocks)) * (this.#hours.get(vmId) ?? 0) * 3_600_000 * PART_OF_TIME
    const leastMs = (now - turn.sliceBeganMs) * limits.scrubPauseFactor
    // A pass over nothing is over at once, and must not be the only thing this host does.
    const pauseMs = passEnded && checkedBlocks === 0 ? limits.scrubIdleMs : Math.max(shareMs, leastMs)
    turn.dueMs = now + Math.min(limits.scrubPauseMaxMs, pauseMs)
    if (!passEnded && now - turn.reportedMs < limits.scrubReportMs) return 'quiet'
    turn.reportedMs = now
    return 'report'
  }

  /** Not now: it cannot be read, or somebody else reads it. */
  later(vmId: VmId): void {
    const turn = this.#turns.get(vmId)
    if (turn) turn.dueMs = this.#clock.monotonicMs() + limits.scrubPauseMaxMs
  }
}
