/** Which copy cycle is to be application-consistent: the first one after the policy's hours, and another when that did not succeed. */
import type { SealedDelta } from '#recovery-agent/capture/port.ts'
import type { Source } from './source.ts'

const HOUR_MS = 3_600_000
/** A guest that cannot is not asked to in each cycle: an attempt may hold it for the whole of its limit. */
const RETRY_MS = 10 * 60_000

export function isAppPointDue(input: {
  /** 0: never. */
  readonly hours: number
  /** Of the newest one; null: there was none. */
  readonly lastMs: number | null
  readonly nowMs: number
}): boolean {
  const { hours, lastMs, nowMs } = input
  if (hours === 0) return false
  // One in the future means that the clock was set back.
  return lastMs === null || nowMs < lastMs || nowMs - lastMs >= hours * HOUR_MS
}

export class AppPoints {
  readonly #source: Source
  #triedMonotonicMs: number | undefined

  constructor(source: Source) {
    this.#source = source
  }

  /** Whether the cycle that begins now is to be one. Asked again within ten minutes, the answer is no, unless that succeeded. */
  take(): boolean {
    const { record, deps } = this.#source
    const { policy, lastAppPointMs } = record
    const due = { hours: policy.appConsistentHours, lastMs: lastAppPointMs, nowMs: deps.clock.now() }
    if (!isAppPointDue(due)) return false
    const nowMs = deps.clock.monotonicMs()
    if (this.#triedMonotonicMs !== undefined && nowMs - this.#triedMonotonicMs < RETRY_MS) return false
    this.#triedMonotonicMs = nowMs
    return true
  }

  /** What became of a cycle that was to be one. */
  sealed({ seq, capturedAtMs, consistency }: SealedDelta, notQuiesced: string | undefined): void {
    const { deps, vmId } = this.#source
    if (consistency === 'application') {
      this.#triedMonotonicMs = undefined
      this.#source.note({ lastAppPointMs: capturedAtMs })
      return
    }
    if (notQuiesced === undefined) return
    const message = `point ${seq} of VM ${vmId} is crash-consistent, not application-consistent: ${notQuiesced}`
    deps.raise({ severity: 'warning', code: 'app-consistent-failed', message, vmId })
  }
}
