import type { CaptureOutcome } from '#recovery-agent/capture/port.ts'
import { assertNever } from '#shared/assert.ts'
import { errorDocument, HotsiteError } from '#shared/errors/hotsite-error.ts'
import { type AnomalyHistory, withSample } from '#shared/policy/anomaly.ts'
import type { SourceRecord } from '../state/agent-state.ts'
import { firstCycleDelayMs, nextCycleDelayMs, unseenMs } from './cycle-timer.ts'
import type { Source } from './source.ts'
import { raiseFindings } from './verify.ts'

/**
 * Copy cycles by the timetable and on request, into the buffer. Knows nothing of the link: while the target is away it
 * goes on until the buffer is full, and after that the tracker goes on collecting (I13).
 */
export async function captureLoop(source: Source, signal: AbortSignal): Promise<void> {
  const { clock } = source.deps
  if (source.lastCaptureMonotonicMs === null) {
    const last = {
      lastCapturedAtMs: source.record.lastCycle?.capturedAtMs ?? null,
      nowMs: clock.now(),
      frequencyMs: source.frequencyMs,
    }
    source.markSeen(clock.monotonicMs() - unseenMs(last))
    // As if the last cycle had started so long ago: a policy that changes then takes effect at once.
    source.markCapture(clock.monotonicMs() + firstCycleDelayMs(last) - source.frequencyMs)
  }
  while (!signal.aborted) {
    const seen = source.version
    const delayMs = nextCycleDelayMs({
      lastStartMonotonicMs: source.lastCaptureMonotonicMs ?? 0,
      nowMonotonicMs: clock.monotonicMs(),
      frequencyMs: source.cycleMs,
    })
    if (!source.mayCapture) await source.change(seen, signal)
    else if (delayMs > 0 && !source.cycleWanted) await source.changeOrAfter(seen, delayMs, signal)
    else {
      source.markCapture(clock.monotonicMs())
      await cycle(source, signal)
    }
  }
}

async function cycle(source: Source, signal: AbortSignal): Promise<void> {
  const { engine, clock, crashPoint } = source.deps
  const startMs = clock.monotonicMs()
  // Not since the last try: one that came to nothing leaves its changes to this one.
  const elapsedMs = startMs - source.seenMonotonicMs
  const requests = source.takeRequests()
  const quiesce = source.appPoints.take()
  let outcome: CaptureOutcome
  try {
    outcome = await engine.capture(source.vmId, {
      compress: source.compressing.inNextCycle,
      proofHours: source.record.policy.proofHours,
      quiesce,
      writes: { history: source.record.writes, elapsedMs },
    })
  } catch (error) {
    const failure = asCaptureFailure(source, error)
    source.failed(failure, 'warning')
    for (const request of requests) request.reject(failure)
    return
  }
  switch (outcome.kind) {
    case 'sealed': {
      crashPoint('source:sealed')
      const { seq } = outcome.delta
      source.markSeen(startMs)
      takeSealed(source, outcome, elapsedMs)
      if (quiesce) source.appPoints.sealed(outcome.delta, outcome.notQuiesced)
      await source.refresh()
      for (const request of requests) request.resolve({ seq })
      return
    }
    case 'buffer-full': {
      source.returnRequests(requests)
      const { bufferedBytes, maxBytes } = outcome
      const message = `the buffer holds ${bufferedBytes} of ${maxBytes} bytes; VM ${source.vmId} waits for room`
      source.failed(
        new HotsiteError('buffer-full', message, { details: { bufferedBytes, maxBytes } }),
        'warning',
      )
      source.flow.evaluate()
      // Without a request the timetable decides.
      if (requests.length > 0) await roomOrInterval(source, bufferedBytes, signal)
      return
    }
    case 'needs-sync':
      source.returnRequests(requests)
      await source.refresh()
      return
    default:
      assertNever(outcome)
  }
}

/**
 * Room comes from an acknowledgement, which is a change. Not every change is one: what the send loop does about a failed
 * cycle is another, and would begin the next cycle at once, and so on without a pause.
 */
async function roomOrInterval(source: Source, bufferedBytes: number, signal: AbortSignal): Promise<void> {
  const { engine, clock } = source.deps
  const untilMs = clock.monotonicMs() + source.frequencyMs
  while (!signal.aborted) {
    const seen = source.version
    const leftMs = untilMs - clock.monotonicMs()
    if (leftMs <= 0 || (await engine.usage()).bufferedBytes < bufferedBytes) return
    await source.changeOrAfter(seen, leftMs, signal)
  }
}

function takeSealed(
  source: Source,
  { delta, findings }: Extract<CaptureOutcome, { kind: 'sealed' }>,
  elapsedMs: number,
): void {
  const { clock } = source.deps
  const { seq, capturedAtMs, stats } = delta
  const { storedBytes: _storedBytes, storedShare, suspect, ...counted } = stats
  const { changedBlocks } = stats
  const sample = { changedBlocks, storedShare, seconds: elapsedMs / 1000, suspect: suspect !== '' }
  source.note({
    lastCycle: { seq, capturedAtMs, ...counted, sentBytes: 0, transferMs: null },
    writes: asStored(withSample(source.record.writes, sample, clock.now())),
  })
  source.flow.sealed(delta, elapsedMs)
  raiseFindings(source, findings)
  if (suspect !== '') raiseSuspect(source, seq, suspect)
}

function raiseSuspect({ deps, vmId }: Source, seq: number, suspect: string): void {
  const message = `point ${seq} of VM ${vmId} may not be the VM's ordinary work: ${suspect}. A hint only; the point before it is held.`
  deps.raise({ severity: 'warning', code: 'point-suspect', message, vmId })
}

function asStored({ recent, days }: AnomalyHistory): SourceRecord['writes'] {
  return { recent: recent.map((one) => ({ ...one })), days: days.map((one) => ({ ...one })) }
}

function asCaptureFailure(source: Source, error: unknown): HotsiteError {
  if (error instanceof HotsiteError) return error
  const { code, message } = errorDocument(error)
  const text = `VM ${source.vmId}: ${message}`
  return new HotsiteError(code === 'internal' ? 'capture-failed' : code, text, { cause: error })
}
