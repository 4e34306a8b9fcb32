import type { SealedDelta } from '#recovery-agent/capture/port.ts'
import type { SourceRecord } from '../state/agent-state.ts'
import type { Conversation } from '../stream/source/conversation.ts'
import type { PeerLink } from '../stream/source/peer-link.ts'
import type { Transfer } from '../stream/source/send-delta.ts'
import type { Source } from './source.ts'

/** One VM, and a target that listens. */
export interface Work {
  readonly source: Source
  readonly link: PeerLink
  readonly conversation: Conversation
  /** Ends with the attempt or with the conversation, whichever is first. */
  readonly signal: AbortSignal
}

export function makeTransfer(
  { source, conversation, link, signal }: Work,
  deadlineMs: number | null,
  onSent: (bytes: number) => void,
): Transfer {
  return {
    conversation,
    turns: link.turns,
    deadlineMs,
    signal,
    onSent,
    throttle: (bytes, stop) => source.throttle.pass(bytes, stop),
  }
}

/** A delta that was sent whole. */
export function totalsWith(
  totals: SourceRecord['totals'],
  { stats }: SealedDelta,
  sentBytes: number,
): SourceRecord['totals'] {
  return {
    changedBytes: totals.changedBytes + stats.changedBytes,
    sentBytes: totals.sentBytes + sentBytes,
    cycles: totals.cycles + 1,
  }
}
