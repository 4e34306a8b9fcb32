import type { VmId } from '#shared/ids.ts'

/** A VM that has a batch ready for a shared link. */
export interface Contender {
  readonly vmId: VmId
  /** When its data would be older than the policy wants; null: no promise was made (a synchronization). */
  readonly deadlineMs: number | null
  /** Number of the turn it had last; 0: none yet. */
  readonly lastTurn: number
}

/** One turn in so many goes to whoever waited longest, so that no VM starves behind eternal deadlines. */
export const FAIR_TURN_EVERY = 4

/** Who sends the next batch: the earliest deadline; among equals, and in every fourth turn, the longest without a turn. */
export function nextTurn(contenders: readonly Contender[], turn: number): Contender | undefined {
  const fair = turn % FAIR_TURN_EVERY === 0
  return [...contenders].sort((a, b) => (fair ? 0 : byDeadline(a, b)) || a.lastTurn - b.lastTurn)[0]
}

function byDeadline(a: Contender, b: Contender): number {
  if (a.deadlineMs === null || b.deadlineMs === null) {
    return Number(a.deadlineMs === null) - Number(b.deadlineMs === null)
  }
  return a.deadlineMs - b.deadlineMs
}
