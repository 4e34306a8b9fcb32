import type { CaptureOutcome } from '#recovery-agent/capture/port.ts'
import { assertNever } from '#shared/assert.ts'
import { errorDocument, HotsiteError } from '#shared/errors/hotsite-error.ts'
import { firstCycleDelayMs, nextCycleDelayMs } from './cycle-timer.ts'
import type { Source } from './source.ts'

/**
 * Copy cycles by the timetable and on request, into the buffer. Knows nothing of the link: while the target is away it
 * goes on until the buffer is full, and after that the tracker goes on collecting (I13).
 */
export async function captureLoop(source: Source, signal: AbortSignal): Promise<void> {
  const { clock } = source.deps
  if (source.lastCaptureMonotonicMs === null) {
    const delayMs = firstCycleDelayMs({
      lastCapturedAtMs: source.record.lastCycle?.capturedAtMs ?? null,
      nowMs: clock.now(),
      frequencyMs: source.frequencyMs,
    })
    // As if the last cycle had started so long ago: a policy that changes then takes effect at once.
    source.markCapture(clock.monotonicMs() + delayMs - source.frequencyMs)
  }
  while (!signal.aborted) {
    const seen = source.version
    const delayMs = nextCycleDelayMs({
      lastStartMonotonicMs: source.lastCaptureMonotonicMs ?? 0,
      nowMonotonicMs: clock.monotonicMs(),
      frequencyMs: source.frequencyMs,
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
  const { engine, crashPoint } = source.deps
  const requests = source.takeRequests()
  let outcome: CaptureOutcome
  try {
    outcome = await engine.capture(source.vmId, { compress: source.compresses })
  } catch (error) {
    const failure = asCaptureFailure(source, error)
    source.failed(failure, 'warning')
    for (const request of requests) request.reject(failure)
    return
  }
  switch (outcome.kind) {
    case 'sealed': {
      crashPoint('source:sealed')
      const { seq, capturedAtMs, stats } = outcome.delta
      const { storedBytes: _storedBytes, ...counted } = stats
      source.update({ lastCycle: { seq, capturedAtMs, ...counted, sentBytes: 0, transferMs: null } })
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
      // Room comes from an acknowledgement, which is a change; without a request the timetable decides.
      if (requests.length > 0) await source.changeOrAfter(source.version, source.frequencyMs, signal)
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

function asCaptureFailure(source: Source, error: unknown): HotsiteError {
  if (error instanceof HotsiteError) return error
  const { code, message } = errorDocument(error)
  const text = `VM ${source.vmId}: ${message}`
  return new HotsiteError(code === 'internal' ? 'capture-failed' : code, text, { cause: error })
}
