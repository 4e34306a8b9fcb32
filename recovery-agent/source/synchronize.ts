/** A synchronization of one VM: held back until it may begin, with what it will cost, and then run with its progress. */
import { noProgress, secondsLeft, withSample } from '#shared/policy/progress-estimate.ts'
import { transferSeconds } from '#shared/policy/timetable.ts'
import { limits } from '../limits.ts'
import { estimateSync } from '../stream/source/estimate-sync.ts'
import { runSync } from '../stream/source/run-sync.ts'
import type { Source } from './source.ts'
import { makeTransfer, type Work } from './work.ts'

/** Answers the target's newest point; null: it waits; look again after `pendingSync.lookAgainMs`, or when something changes. */
export async function synchronizeWhenCleared(work: Work, newestSeq: number): Promise<number | null> {
  const { pendingSync } = work.source
  const isHeld = () => pendingSync.gate?.kind === 'waits'
  if (isHeld() && pendingSync.estimate === null) await estimate(work, newestSeq, isHeld)
  if (isHeld()) return null
  // Once begun it goes on, through breaks and restarts and the end of a window.
  pendingSync.clear()
  return await synchronize(work, newestSeq)
}

/** Reads and compares; nothing but hashes is on the wire. */
async function estimate(work: Work, newestSeq: number, isWanted: () => boolean): Promise<void> {
  const { source } = work
  const { engine, clock } = source.deps
  const startedMs = clock.monotonicMs()
  source.pendingSync.estimating(true)
  try {
    await using session = await engine.openSync(source.vmId, { newestSeq })
    const transfer = makeTransfer(work, null, () => {})
    const cost = await estimateSync({ session, transfer, epoch: source.record.epoch }, isWanted)
    if (cost === null) return
    const { compareBytes, differingBytes } = cost
    const sendBytes = Math.round(differingBytes * storedShareOf(source))
    const compareSeconds = (clock.monotonicMs() - startedMs) / 1000
    const seconds = Math.max(compareSeconds, sendSeconds(source, sendBytes))
    source.pendingSync.estimated({ compareBytes, sendBytes, seconds })
  } finally {
    source.pendingSync.estimating(false)
  }
}

/** What compression left of the blocks sent so far; 1 when there is nothing to go by. */
function storedShareOf({ record }: Source): number {
  const { changedBytes, sentBytes } = record.totals
  if (!record.policy.compression || changedBytes === 0) return 1
  return Math.min(1, sentBytes / changedBytes)
}

/** From the instant it may begin, at the rates of those hours. */
function sendSeconds(source: Source, bytes: number): number {
  const { flow, record, deps, offsetAt, pendingSync } = source
  const { gate } = pendingSync
  const nowMs = deps.clock.now()
  const atMs = (gate?.kind === 'waits' ? gate.startsAtMs : null) ?? nowMs
  const linkBytesPerSecond = flow.linkBytesPerSecond ?? limits.assumedLinkBytesPerSecond
  return transferSeconds(record.policy, { bytes, linkBytesPerSecond, atMs }, offsetAt) ?? 0
}

async function synchronize(work: Work, newestSeq: number): Promise<number> {
  const { source, conversation } = work
  const { engine, clock, crashPoint } = source.deps
  const startedMs = clock.monotonicMs()
  let sentBytes = 0
  let history = noProgress
  const onProgress = (done: { readonly doneBytes: number; readonly totalBytes: number }) => {
    const nowMs = clock.monotonicMs()
    history = withSample(history, { atMs: nowMs, doneBytes: done.doneBytes })
    const left = secondsLeft(history, done.totalBytes, nowMs)
    source.setProgress({ ...done, secondsLeft: left })
    announceWhenKnown(source, { ...done, sentBytes, elapsedMs: nowMs - startedMs, left })
  }
  source.setProgress({ doneBytes: 0, totalBytes: 0, secondsLeft: null })
  try {
    await using session = await engine.openSync(source.vmId, { newestSeq })
    source.markCapture(clock.monotonicMs())
    source.markSeen(clock.monotonicMs())
    const { seq, capturedAtMs, consistency } = session
    const transfer = makeTransfer(work, null, (bytes) => {
      sentBytes += bytes
    })
    const stats = await runSync({
      transfer,
      session,
      epoch: source.record.epoch,
      compress: source.record.policy.compression,
      choice: source.compressing.choice,
      linkIsScarce: () => source.compressing.linkIsScarce,
      clock,
      onProgress,
    })
    crashPoint('source:sync-committed')
    const { storedBytes: _storedBytes, storedShare: _storedShare, suspect: _suspect, ...counted } = stats
    const { totals } = source.record
    const transferMs = clock.monotonicMs() - startedMs
    source.pendingSync.announce({
      compareBytes: stats.scannedBytes,
      sendBytes: sentBytes,
      seconds: transferMs / 1000,
    })
    source.note({
      lastCycle: { seq, capturedAtMs, ...counted, sentBytes, transferMs },
      totals: {
        changedBytes: totals.changedBytes + stats.changedBytes,
        sentBytes: totals.sentBytes + sentBytes,
        cycles: totals.cycles + 1,
      },
    })
    source.catchingUp.arrived({ epoch: source.record.epoch, seq, capturedAtMs, consistency, stats })
    source.flow.slowDown(conversation.slowMs)
    await source.refresh()
    source.log.info('synchronized', { seq, sentBytes, transferMs })
    return seq
  } finally {
    source.setProgress(null)
  }
}

/** One that begins at once is not read twice for its estimate: what was compared first speaks for the rest. */
function announceWhenKnown(
  source: Source,
  done: {
    readonly doneBytes: number
    readonly totalBytes: number
    readonly sentBytes: number
    readonly elapsedMs: number
    readonly left: number | null
  },
): void {
  if (source.record.resync?.announced || done.doneBytes === 0) return
  const part = done.doneBytes / done.totalBytes
  if (part < limits.estimateAfterPart && done.elapsedMs < limits.estimateAfterMs) return
  const sendBytes = Math.round(done.sentBytes / part)
  const seconds = done.elapsedMs / 1000 + (done.left ?? sendSeconds(source, sendBytes - done.sentBytes))
  source.pendingSync.announce({ compareBytes: done.totalBytes, sendBytes, seconds })
}
