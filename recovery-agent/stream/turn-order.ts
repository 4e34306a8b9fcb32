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

/**
 * Who sends the next batch. Deadlines that can still be met come first, the earliest of them before the others; then
 * those that are past; then synchronizations. Whoever is late already is late whatever happens: by going first it
 * would only make the others late as well. Among equals, and in every fourth turn, the longest without a turn.
 */
export function nextTurn(
  contenders: readonly Contender[],
  turn: number,
  nowMs: number,
): Contender | undefined {
  const fair = turn % FAIR_TURN_EVERY === 0
  const order = (a: Contender, b: Contender) =>
    (fair ? 0 : rankOf(a, nowMs) - rankOf(b, nowMs) || byDeadline(a, b, nowMs)) || a.lastTurn - b.lastTurn
  return [...contenders].sort(order)[0]
}

function rankOf({ deadlineMs }: Contender, nowMs: number): number {
  if (deadlineMs === null) return 2
  return deadlineMs >= nowMs ? 0 : 1
}

/** Only where it can be met: the late ones take turns, so that the small ones among them are through soon. */
function byDeadline(a: Contender, b: Contender, nowMs: number): number {
  if (a.deadlineMs === null || b.deadlineMs === null || a.deadlineMs < nowMs) return 0
  return a.deadlineMs - b.deadlineMs
}
