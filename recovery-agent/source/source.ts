import type { CaptureEngine, SourceVmState } from '#recovery-agent/capture/port.ts'
import type { Clock } from '#shared/clock.ts'
import type { CrashPoint } from '#shared/crash-point.ts'
import { errorDocument, HotsiteError } from '#shared/errors/hotsite-error.ts'
import { isNoRoom } from '#shared/errors/no-room.ts'
import type { VmId } from '#shared/ids.ts'
import type { Logger } from '#shared/log.ts'
import type { ReplicationReport } from '#shared/messages/reports.ts'
import type { OffsetAt } from '#shared/policy/timetable.ts'
import type { Rng } from '#shared/rng.ts'
import { Wakeup } from '#shared/wakeup.ts'
import { zoneClock } from '#shared/zone-clock.ts'
import { limits } from '../limits.ts'
import type { RaiseEvent } from '../reports/events.ts'
import type { AgentState, SourceRecord } from '../state/agent-state.ts'
import type { PeerLinks } from '../stream/source/peer-links.ts'
import { abortable } from './abortable.ts'
import { AppPoints } from './app-points.ts'
import { Backfilling } from './backfilling.ts'
import { CatchingUp } from './catching-up.ts'
import { Compressing } from './compressing.ts'
import { fencedError } from './fenced-error.ts'
import { Flow } from './flow.ts'
import { PendingSync } from './pending-sync.ts'
import { VmThrottle } from './vm-throttle.ts'

export interface SourceDeps {
  readonly engine: CaptureEngine
  readonly links: PeerLinks
  readonly state: AgentState
  readonly clock: Clock
  readonly rng: Rng
  readonly log: Logger
  readonly crashPoint: CrashPoint
  readonly raise: RaiseEvent
  readonly publish: (report: ReplicationReport) => void
}

/** Somebody waits for a cycle that starts after now. */
interface CycleRequest {
  readonly resolve: (sealed: { readonly seq: number }) => void
  readonly reject: (error: unknown) => void
}

type Activity = ReplicationReport['activity']

/**
 * One VM this host replicates: the state that the capture loop and the send loop share, and what is said about it.
 * Everything runs on one event loop; `version` grows with every change, so a waiter that looked before an await
 * sees that it has to look again.
 */
export class Source {
  readonly deps: SourceDeps
  readonly log: Logger
  readonly compressing = new Compressing(this)
  readonly throttle = new VmThrottle(this)
  readonly flow = new Flow(this)
  readonly catchingUp = new CatchingUp(this)
  readonly backfilling = new Backfilling(this)
  readonly pendingSync = new PendingSync(this)
  readonly appPoints = new AppPoints(this)
  readonly #changed = new Wakeup()
  #record: SourceRecord
  #engineState: SourceVmState | undefined
  #requests: CycleRequest[] = []
  #attempt = new AbortController()
  #version = 0
  #fencedBelow: number
  #zone: { readonly timeZone: string; readonly offsetAt: OffsetAt } | undefined
  #connected = false
  #fenceOrdered = false
  #targetAwaySinceMs: number | null
  #lastCaptureMonotonicMs: number | null = null
  #seenMonotonicMs: number
  #stopped: HotsiteError | undefined
  #progress: ReplicationReport['progress'] = null
  #progressPublishedMs = Number.NEGATIVE_INFINITY
  #error: ReplicationReport['error'] = null

  constructor(record: SourceRecord, deps: SourceDeps) {
    this.#record = record
    this.deps = deps
    this.#fencedBelow = deps.state.fencedBelow(record.vmId)
    this.#targetAwaySinceMs = deps.clock.monotonicMs()
    this.#seenMonotonicMs = deps.clock.monotonicMs()
    this.log = deps.log.with({ vmId: record.vmId })
  }

  get vmId(): VmId {
    return this.#record.vmId
  }

  get record(): SourceRecord {
    return this.#record
  }

  get version(): number {
    return this.#version
  }

  get engineState(): SourceVmState | undefined {
    return this.#engineState
  }

  get frequencyMs(): number {
    return this.#record.policy.copyFrequencySeconds * 1000
  }

  /** The time from one copy cycle to the next: longer than the policy says while the target merges. */
  get cycleMs(): number {
    return this.frequencyMs + this.flow.slowMs
  }

  /** The clock of the policy's time zone. */
  get offsetAt(): OffsetAt {
    const { timeZone } = this.#record.policy
    if (this.#zone?.timeZone !== timeZone) this.#zone = { timeZone, offsetAt: this.#zoneClock(timeZone) }
    return this.#zone.offsetAt
  }

  get fenced(): boolean {
    return this.#record.epoch < this.#fencedBelow
  }

  /** The coordinator ordered it, or saw the VM off here before: no surprise. */
  get fenceExpected(): boolean {
    return this.#fenceOrdered || this.#record.seenOff
  }

  get maySend(): boolean {
    return !this.#record.paused && !this.fenced && this.#stopped === undefined
  }

  get mayCapture(): boolean {
    return this.maySend && this.#engineState !== undefined && this.#engineState.needsSync === null
  }

  get peerConnected(): boolean {
    return this.#connected
  }

  /** When the newest copy cycle or synchronization began, whatever came of it; null: not in this life. */
  get lastCaptureMonotonicMs(): number | null {
    return this.#lastCaptureMonotonicMs
  }

  /** Since when no target has taken anything from us; null: one does. */
  get targetAwaySinceMs(): number | null {
    return this.#targetAwaySinceMs
  }

  get error(): ReplicationReport['error'] {
    return this.#error
  }

  markCapture(monotonicMs: number): void {
    this.#lastCaptureMonotonicMs = monotonicMs
  }

  /** The next cycle finds the changes since then. */
  get seenMonotonicMs(): number {
    return this.#seenMonotonicMs
  }

  markSeen(monotonicMs: number): void {
    this.#seenMonotonicMs = monotonicMs
  }

  get cycleWanted(): boolean {
    return this.#requests.length > 0
  }

  /** Resolves when anything changed after `seen` (a `version`). */
  async change(seen: number, signal: AbortSignal): Promise<void> {
    while (this.#version === seen) await this.#changed.next(signal)
  }

  /** The same, but after `ms` at the latest. */
  async changeOrAfter(seen: number, ms: number, signal: AbortSignal): Promise<void> {
    if (this.#version !== seen) return
    await this.#changed.nextOrAfter(this.deps.clock, ms, signal)
  }

  /** Asks the engine how far it is. */
  async refresh(): Promise<SourceVmState> {
    const { engine, state } = this.deps
    const engineState = await engine.state(this.vmId)
    if (!engineState) throw new HotsiteError('vm-not-replicated', `the buffer does not know VM ${this.vmId}`)
    this.#fencedBelow = state.fencedBelow(this.vmId)
    this.#engineState = engineState
    this.backfilling.observe(engineState)
    if (engineState.needsSync === null) this.pendingSync.settle()
    else this.flow.suspend()
    this.touch()
    return engineState
  }

  /** What was ordered: in force when it is persisted, or not at all. */
  update(change: Partial<SourceRecord>): void {
    const record = { ...this.#record, ...change }
    this.deps.state.saveSource(record)
    this.#record = record
    this.touch()
  }

  /** What became of it, and stands elsewhere as well: with no room for state.db it is persisted with a later change. */
  note(change: Partial<SourceRecord>): void {
    this.#record = { ...this.#record, ...change }
    try {
      this.deps.state.saveSource(this.#record)
    } catch (error) {
      if (!isNoRoom(error)) throw error
      this.failed(this.deps.state.named(error), 'warning')
    }
    this.touch()
  }

  /** The send loop starts over: other target, other ticket, paused, resumed. */
  interrupt(reason: string): void {
    this.#attempt.abort(new Error(reason))
    this.touch()
  }

  newAttempt(signal: AbortSignal): AbortSignal {
    this.#attempt = new AbortController()
    return AbortSignal.any([signal, this.#attempt.signal])
  }

  /** Persisted before it returns (I5). */
  fence(belowEpoch: number): void {
    this.deps.state.fence(this.vmId, belowEpoch)
    this.#fencedBelow = this.deps.state.fencedBelow(this.vmId)
    if (!this.fenced) return
    this.failRequests(fencedError(this.#record))
    this.interrupt('fenced')
  }

  fenceByOrder(belowEpoch: number): void {
    this.#fenceOrdered = true
    if (this.#error?.code === 'epoch-stale') this.#error = null
    this.fence(belowEpoch)
  }

  /** The loops end, and whoever waits for a copy learns why. */
  stop(why: HotsiteError): void {
    this.#stopped = why
    this.failRequests(why)
    this.interrupt('stopped')
  }

  /** Resolves with the first cycle that starts after the call. */
  async requestCycle(signal: AbortSignal): Promise<{ readonly seq: number }> {
    const request = Promise.withResolvers<{ readonly seq: number }>()
    this.#requests.push(request)
    this.touch()
    try {
      return await abortable(request.promise, signal)
    } finally {
      this.#requests = this.#requests.filter((other) => other !== request)
    }
  }

  takeRequests(): readonly CycleRequest[] {
    const taken = this.#requests
    this.#requests = []
    return taken
  }

  returnRequests(requests: readonly CycleRequest[]): void {
    this.#requests.unshift(...requests)
  }

  failRequests(error: unknown): void {
    for (const request of this.takeRequests()) request.reject(error)
  }

  /** Throws why no copy can be made, if none can. */
  ensureCopies(): void {
    if (this.fenced) throw fencedError(this.#record)
    if (this.#record.paused) {
      throw new HotsiteError('replication-paused', `replication of VM ${this.vmId} is paused`)
    }
    if (this.#stopped) throw this.#stopped
    if (this.pendingSync.obstacle) throw this.pendingSync.obstacle
  }

  /** A conversation with the target is open, or over. */
  setServed(served: boolean): void {
    const now = this.deps.clock.monotonicMs()
    this.#targetAwaySinceMs = served ? null : (this.#targetAwaySinceMs ?? now)
    this.touch()
  }

  /** No target has taken anything for so long: more than a link that is dialled anew. */
  isTargetLost(forMs: number): boolean {
    const sinceMs = this.#targetAwaySinceMs
    return sinceMs !== null && this.deps.clock.monotonicMs() - sinceMs >= forMs
  }

  setConnected(connected: boolean): void {
    if (this.#connected === connected) return
    this.#connected = connected
    this.touch()
  }

  setProgress(progress: ReplicationReport['progress']): void {
    const now = this.deps.clock.monotonicMs()
    const first = this.#progress === null
    this.#progress = progress
    if (progress && !first && now - this.#progressPublishedMs < limits.progressReportMs) return
    this.#progressPublishedMs = now
    this.touch()
  }

  failed(error: unknown, severity: 'warning' | 'critical'): void {
    const { code, message, details } = errorDocument(error)
    // Each disk of this host that is full is an event of its own.
    const about = String(details['dir'] ?? '')
    this.deps.raise({ severity, code, message, vmId: this.vmId, about })
    this.showError(error)
  }

  /** In the report; whether it is an event as well is not known yet. */
  showError(error: unknown): void {
    const { code, message } = errorDocument(error)
    this.#error = { code, message, atMs: this.deps.clock.now() }
    this.touch()
  }

  succeeded(): void {
    if (this.#error === null) return
    this.#error = null
    this.touch()
  }

  touch(): void {
    this.#version += 1
    this.deps.publish(this.report())
    this.#changed.notify()
  }

  report(): ReplicationReport {
    const { vmId, epoch, lastCycle, totals } = this.#record
    const state = this.#engineState
    return {
      vmId,
      epoch,
      activity: this.#activity(),
      cause: state?.needsSync ?? null,
      sealedSeq: state?.sealedSeq ?? 0,
      ackedSeq: state?.ackedSeq ?? 0,
      newestCapturedAtMs: lastCycle?.capturedAtMs ?? state?.ackedCapturedAtMs ?? null,
      newestAckedCapturedAtMs: state?.ackedCapturedAtMs ?? null,
      bufferedBytes: state?.bufferedBytes ?? 0,
      progress: this.#progress,
      resync: this.pendingSync.report(this.#progress !== null),
      proof: state?.proof ? [...state.proof] : [],
      // A VM that is paused or fenced is not copied: nothing is foretold of it.
      forecast: this.maySend ? this.flow.forecast : null,
      catchUp: this.catchingUp.report(),
      owedPoints: this.backfilling.pointCount,
      slowedByMs: this.flow.slowMs,
      lastCycle,
      totals,
      peerConnected: this.#connected,
      error: this.#error,
    }
  }

  #zoneClock(timeZone: string): OffsetAt {
    try {
      return zoneClock(timeZone)
    } catch (error) {
      // The coordinator checks names; another version of the zone database may still know fewer.
      this.log.warn('unknown time zone, its windows are read as UTC', { timeZone, error })
      return () => 0
    }
  }

  #activity(): Activity {
    if (this.#stopped) return 'stopped'
    if (this.fenced) return 'fenced'
    if (this.#record.paused) return 'paused'
    if (this.#progress) return 'synchronizing'
    return this.#engineState && this.#engineState.needsSync === null ? 'replicating' : 'waiting'
  }
}
