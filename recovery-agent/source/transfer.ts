/** Brings what waits in the buffer to the target, one delta or one run of deltas at a time. */
import type { SealedDelta, SourceVmState } from '#recovery-agent/capture/port.ts'
import { sendDelta } from '../stream/source/send-delta.ts'
import { transferOwed } from './transfer-owed.ts'
import { makeTransfer, totalsWith, type Work } from './work.ts'

/** Answers the target's newest point; null: nothing waits. */
export async function transferNext(work: Work, state: SourceVmState): Promise<number | null> {
  const { source, conversation } = work
  const { engine } = source.deps
  const { ackedSeq, sealedSeq } = state
  const owed = source.backfilling.next(state)
  if (owed && source.backfilling.hasTurn(sealedSeq > ackedSeq)) {
    await transferOwed(work, owed)
    return ackedSeq
  }
  const run = await source.catchingUp.nextRun(state, conversation.takesBackfills)
  const delta = await engine.nextDelta(source.vmId, ackedSeq, run?.lastSeq)
  if (!delta) return null
  return await transferDelta(work, delta, run?.isUnion ? 'union' : 'delta')
}

async function transferDelta(work: Work, delta: SealedDelta, kind: 'delta' | 'union'): Promise<number> {
  const { source, conversation } = work
  const { engine, clock, crashPoint } = source.deps
  const startedMs = clock.monotonicMs()
  let sentBytes = 0
  const transfer = makeTransfer(work, delta.capturedAtMs + 2 * source.frequencyMs, (bytes) => {
    sentBytes += bytes
  })
  await sendDelta(transfer, engine, delta, { kind })
  crashPoint('source:point-acknowledged')
  await engine.acknowledge(source.vmId, delta.seq)
  crashPoint('source:base-released')
  const { lastCycle, totals } = source.record
  const transferMs = clock.monotonicMs() - startedMs
  source.note({
    lastCycle: lastCycle?.seq === delta.seq ? { ...lastCycle, sentBytes, transferMs } : lastCycle,
    totals: totalsWith(totals, delta, sentBytes),
  })
  source.catchingUp.arrived(delta)
  source.backfilling.waited(transferMs)
  source.flow.slowDown(conversation.slowMs)
  source.flow.transferred(sentBytes, transferMs)
  source.log.info('point acknowledged', { firstSeq: delta.firstSeq, seq: delta.seq, sentBytes, transferMs })
  return delta.seq
}
