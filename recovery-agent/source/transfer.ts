/** Brings what waits in the buffer to the target, one delta or one run of deltas at a time. */
import type { SealedDelta } from '#recovery-agent/capture/port.ts'
import type { Conversation } from '../stream/source/conversation.ts'
import type { PeerLink } from '../stream/source/peer-link.ts'
import { sendDelta, type Transfer } from '../stream/source/send-delta.ts'
import type { Source } from './source.ts'

export interface Work {
  readonly source: Source
  readonly link: PeerLink
  readonly conversation: Conversation
  /** Ends with the attempt or with the conversation, whichever is first. */
  readonly signal: AbortSignal
}

/** Answers the target's newest point; null: nothing waits. */
export async function transferNext(work: Work, ackedSeq: number): Promise<number | null> {
  const { source } = work
  const { engine } = source.deps
  const run = source.catchingUp.nextRun(ackedSeq)
  const delta = await engine.nextDelta(source.vmId, ackedSeq, run?.lastSeq)
  return delta ? await transferDelta(work, delta) : null
}

async function transferDelta(work: Work, delta: SealedDelta): Promise<number> {
  const { source, conversation } = work
  const { engine, clock, crashPoint } = source.deps
  const startedMs = clock.monotonicMs()
  let sentBytes = 0
  const transfer = makeTransfer(work, delta.capturedAtMs + 2 * source.frequencyMs, (bytes) => {
    sentBytes += bytes
  })
  await sendDelta(transfer, engine, delta)
  crashPoint('source:point-acknowledged')
  await engine.acknowledge(source.vmId, delta.seq)
  crashPoint('source:base-released')
  const { lastCycle, totals } = source.record
  const transferMs = clock.monotonicMs() - startedMs
  source.note({
    lastCycle: lastCycle?.seq === delta.seq ? { ...lastCycle, sentBytes, transferMs } : lastCycle,
    totals: {
      changedBytes: totals.changedBytes + delta.stats.changedBytes,
      sentBytes: totals.sentBytes + sentBytes,
      cycles: totals.cycles + 1,
    },
  })
  source.catchingUp.arrived(delta)
  source.flow.slowDown(conversation.slowMs)
  source.flow.transferred(sentBytes, transferMs)
  source.log.info('point acknowledged', { firstSeq: delta.firstSeq, seq: delta.seq, sentBytes, transferMs })
  return delta.seq
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
