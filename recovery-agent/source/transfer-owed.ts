/** Brings an older point below a newer one that is at the target, or as much of it as there is time for. */
import type { OwedRange } from '../buffer/owed.ts'
import { sendDelta } from '../stream/source/send-delta.ts'
import { makeTransfer, totalsWith, type Work } from './work.ts'

/** The first point of the range. Rejects with `backfill-refused` when that alone is what went wrong. */
export async function transferOwed(work: Work, range: OwedRange): Promise<void> {
  const { backfilling } = work.source
  const [point] = range.points
  if (!point) return await end(work, range, null)
  if (!work.conversation.takesBackfills)
    return await end(
      work,
      range,
      'the target cannot take them: its version is older, or what its layers hold is not known',
    )
  try {
    await send(work, range, point.seq)
  } catch (error) {
    throw await backfilling.failed(error, range, point.seq)
  }
}

async function send(work: Work, range: OwedRange, seq: number): Promise<void> {
  const { source } = work
  const { backfilling, deps, vmId } = source
  const { engine, clock, crashPoint } = deps
  const { baseSeq, topSeq, points } = range
  const delta = await engine.owedDelta(vmId, { baseSeq, seq })
  if (!delta) {
    await source.refresh()
    return
  }
  const startedMs = clock.monotonicMs()
  const elapsedMs = () => clock.monotonicMs() - startedMs
  let sentBytes = 0
  const transfer = makeTransfer(work, null, (bytes) => {
    sentBytes += bytes
  })
  const outcome = await sendDelta(transfer, engine, delta, {
    kind: 'backfill',
    owed: { topSeq, whole: backfilling.sendsWhole(seq) },
    mustPause: () => backfilling.mustPause(elapsedMs()),
  })
  backfilling.took(elapsedMs())
  const { totals } = source.record
  if (outcome === 'paused') {
    source.note({ totals: { ...totals, sentBytes: totals.sentBytes + sentBytes } })
    return
  }
  crashPoint('source:backfill-acknowledged')
  source.note({ totals: totalsWith(totals, delta, sentBytes) })
  source.catchingUp.backfilled(delta)
  const left = points.filter((point) => point.seq > seq)
  if (left.length === 0) await end(work, range, null)
  else {
    await engine.owe(vmId, { baseSeq: seq, topSeq, points: left })
    await source.refresh()
  }
  crashPoint('source:backfill-released')
  source.log.info('older point acknowledged', { firstSeq: delta.firstSeq, seq, topSeq, sentBytes })
}

/** Nothing more is brought below that top, so the target need not hold it. `why`: of points that are given up. */
async function end({ source, conversation }: Work, range: OwedRange, why: string | null): Promise<void> {
  await source.backfilling.close(range, why)
  if (!conversation.takesBackfills) return
  const { vmId, engineState, record } = source
  const owedTops = engineState?.owed.map(({ topSeq }) => topSeq) ?? []
  await conversation.send({ kind: 'backfills', body: { vmId, epoch: record.epoch, owedTops } })
}
