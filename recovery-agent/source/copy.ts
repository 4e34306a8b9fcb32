/** A copy that somebody waits for: one cycle now, and its point at the target. */
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { CommandResultOf } from '#shared/messages/commands.ts'
import { limits } from '../limits.ts'
import type { Source } from './source.ts'

/**
 * One copy cycle now; resolves when the target holds its point, or a newer one. Repeatable. Throws
 * `target-unreachable` when the target is away for too long; what was captured stays in the buffer.
 */
export async function copyNow(
  source: Source,
  signal: AbortSignal,
): Promise<CommandResultOf<'replication.copyNow'>> {
  source.ensureCopies()
  const over = new AbortController()
  const either = AbortSignal.any([signal, over.signal])
  try {
    return await Promise.race([copied(source, either), targetAway(source, either)])
  } finally {
    // The loser's rejection belongs to nobody: Promise.race has already subscribed to it.
    over.abort(new Error('the copy is over'))
  }
}

async function copied(source: Source, signal: AbortSignal): Promise<CommandResultOf<'replication.copyNow'>> {
  const { seq } = await source.requestCycle(signal)
  for (;;) {
    const seen = source.version
    const state = source.engineState
    if (state && state.needsSync === null && state.ackedSeq >= seq && state.ackedCapturedAtMs !== null) {
      const point = { epoch: state.epoch, seq: state.ackedSeq }
      return { point, capturedAtMs: state.ackedCapturedAtMs }
    }
    source.ensureCopies()
    await source.change(seen, signal)
  }
}

/** Rejects when the target was away for too long, counted from this call on. However slow a target is, it is not away. */
async function targetAway(source: Source, signal: AbortSignal): Promise<never> {
  const { clock } = source.deps
  const calledMs = clock.monotonicMs()
  for (;;) {
    const seen = source.version
    if (source.targetAwaySinceMs === null) {
      await source.change(seen, signal)
      continue
    }
    const untilMs = Math.max(calledMs, source.targetAwaySinceMs) + limits.copyTargetAwayMs
    const leftMs = untilMs - clock.monotonicMs()
    if (leftMs <= 0) throw unreachable(source)
    await source.changeOrAfter(seen, leftMs, signal)
  }
}

function unreachable(source: Source): HotsiteError {
  const { serverId, host, port } = source.record.target
  const minutes = limits.copyTargetAwayMs / 60_000
  const last = source.error ? `; last it said: ${source.error.message}` : ''
  return new HotsiteError(
    'target-unreachable',
    `VM ${source.vmId}: the target ${serverId} at ${host}:${port} took nothing for ${minutes} minutes${last}`,
  )
}
