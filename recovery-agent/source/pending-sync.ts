import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { ReplicationReport } from '#shared/messages/reports.ts'
import { decideResync, isOrdered, type ResyncGate } from '#shared/policy/resync-gate.ts'
import { limits } from '../limits.ts'
import type { SourceRecord } from '../state/agent-state.ts'
import type { Source } from './source.ts'
import { bytesText, durationText, instantText } from './words.ts'

export type SyncEstimate = NonNullable<NonNullable<ReplicationReport['resync']>['estimate']>

const unseen: NonNullable<SourceRecord['resync']> = { why: '', cleared: false, announced: false }

/**
 * A synchronization of one VM that is due (I7): why, whether it may begin, what it will cost, and the one event about
 * it. What was decided about it is in the source record and outlives a restart; the estimate is made again.
 */
export class PendingSync {
  readonly #source: Source
  #estimate: SyncEstimate | null = null
  #estimating = false

  constructor(source: Source) {
    this.#source = source
  }

  get estimate(): SyncEstimate | null {
    return this.#estimate
  }

  /** undefined: none is due. */
  get gate(): ResyncGate | undefined {
    const { record, engineState, deps, offsetAt } = this.#source
    const cause = engineState?.needsSync
    if (!cause) return undefined
    const { policy, notBeforeMs } = record
    const cleared = record.resync?.cleared ?? false
    return decideResync({ cause, cleared, notBeforeMs, policy }, deps.clock.now(), offsetAt)
  }

  /** Until its time has come, if one is known; never for long, since wall clocks are set. */
  get lookAgainMs(): number {
    const { gate } = this
    if (gate?.kind !== 'waits' || gate.startsAtMs === null) return limits.timetableLookMs
    const startsInMs = gate.startsAtMs - this.#source.deps.clock.now()
    return Math.min(Math.max(1, startsInMs), limits.timetableLookMs)
  }

  /** Which point was expected where, for the event. */
  because(why: string): void {
    this.#change({ why })
  }

  /** It begins, or a person wants it to. Throws `resync-not-waiting`. */
  clear(): void {
    if (this.gate === undefined) {
      const message = `no synchronization of VM ${this.#source.vmId} is due`
      throw new HotsiteError('resync-not-waiting', message)
    }
    const { resync } = this.#source.record
    if (resync?.cleared !== true) this.#source.update({ resync: { ...unseen, ...resync, cleared: true } })
  }

  /** None is due: whatever was decided about the last one is over. */
  settle(): void {
    this.#estimate = null
    const { resync, notBeforeMs } = this.#source.record
    if (resync !== null || notBeforeMs !== null) this.#source.note({ resync: null, notBeforeMs: null })
  }

  estimating(now: boolean): void {
    if (this.#estimating === now) return
    this.#estimating = now
    this.#source.touch()
  }

  /** The cost is known: shown, and said once. */
  estimated(estimate: SyncEstimate): void {
    this.#estimate = estimate
    this.announce(estimate)
    this.#source.touch()
  }

  /** One event for each synchronization that is not just the first one beginning as ordered. */
  announce(estimate: SyncEstimate): void {
    const { record, engineState, deps, vmId } = this.#source
    const { gate } = this
    const cause = engineState?.needsSync
    if (!gate || !cause || record.resync?.announced) return
    this.#change({ announced: true })
    if (cause === 'initial' && gate.kind === 'open') return
    const detail = record.resync?.why || engineState?.found?.message
    const why = detail ? ` (${detail})` : ''
    const cost = `compares ${bytesText(estimate.compareBytes)}, sends about ${bytesText(estimate.sendBytes)}, takes about ${durationText(estimate.seconds * 1000)}`
    const message = `VM ${vmId} has to be synchronized, cause ${cause}${why}: ${cost}; ${startText(gate)}. Existing points stay.`
    const severity = isOrdered(cause) ? 'info' : 'warning'
    const about = `${cause}/${gate.kind === 'waits' ? gate.waitsFor : 'now'}`
    deps.raise({ severity, code: 'replication-resync', message, vmId, about })
  }

  report(synchronizing: boolean): ReplicationReport['resync'] {
    const { gate } = this
    const cause = this.#source.engineState?.needsSync
    if (!gate || !cause) return null
    const estimate = this.#estimate
    if (gate.kind === 'open') {
      const begun = synchronizing && !this.#source.record.resync?.announced
      return begun ? { cause, waitsFor: 'estimating', startsAtMs: null, estimate } : null
    }
    const { waitsFor, startsAtMs } = gate
    return { cause, waitsFor: this.#estimating ? 'estimating' : waitsFor, startsAtMs, estimate }
  }

  /** Why a copy would wait for ever, or for hours; undefined: it would not. */
  get obstacle(): HotsiteError | undefined {
    const { gate } = this
    if (gate?.kind !== 'waits') return undefined
    const message = `VM ${this.#source.vmId} has to be synchronized first; ${startText(gate)}`
    return new HotsiteError('resync-waits', message)
  }

  #change(change: Partial<NonNullable<SourceRecord['resync']>>): void {
    this.#source.note({ resync: { ...unseen, ...this.#source.record.resync, ...change } })
  }
}

function startText(gate: ResyncGate): string {
  if (gate.kind === 'open') return 'it begins at once'
  const at = gate.startsAtMs === null ? '' : `, ${instantText(gate.startsAtMs)}`
  switch (gate.waitsFor) {
    case 'start-time':
      return `it waits for its start time${at}`
    case 'window':
      return `it waits for its window${at}`
    case 'approval':
      return 'it waits for approval: "hotsite vm resync VM --now"'
  }
}
