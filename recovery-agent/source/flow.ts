import type { SealedDelta } from '#recovery-agent/capture/port.ts'
import type { ReplicationReport } from '#shared/messages/reports.ts'
import type { PendingDelta } from '#shared/policy/catch-up.ts'
import {
  churnBytesPerSecond,
  type FlowHistory,
  type ForecastWarning,
  linkBytesPerSecond,
  noFlow,
  predictBreach,
  stepWarning,
  withCycle,
  withTransfer,
} from '#shared/policy/rpo-forecast.ts'
import { rateInForce } from '#shared/policy/timetable.ts'
import { layoutOf } from '../buffer/owed.ts'
import { limits } from '../limits.ts'
import type { Source } from './source.ts'
import { bytesText, durationText, instantText } from './words.ts'

export interface BacklogDelta extends PendingDelta {
  readonly storedBytes: number
}

/** How the changes of one VM get through: what waits in the buffer, how fast it leaves, and when that is too slow. */
export class Flow {
  readonly #source: Source
  #history: FlowHistory = noFlow
  #warning: ForecastWarning = { kind: 'calm' }
  #backlog: readonly BacklogDelta[] = []
  /** The newest that arrived; the engine's state is asked for only afterwards. */
  #arrived: Pick<BacklogDelta, 'seq' | 'capturedAtMs'> | null = null
  #slowMs = 0
  #forecast: ReplicationReport['forecast'] = null

  constructor(source: Source) {
    this.#source = source
  }

  /** Sealed and not acknowledged, oldest first. */
  get backlog(): readonly BacklogDelta[] {
    return this.#backlog
  }

  /** What the target asked to be added to every cycle while its merges lag behind. */
  get slowMs(): number {
    return this.#slowMs
  }

  get forecast(): ReplicationReport['forecast'] {
    return this.#forecast
  }

  /** null: nothing was large enough to measure. Never above the throttle of the moment. */
  get linkBytesPerSecond(): number | null {
    const measured = linkBytesPerSecond(this.#history)
    const { record, deps, offsetAt } = this.#source
    const throttle = rateInForce(record.policy, deps.clock.now(), offsetAt)
    return measured !== null && throttle > 0 ? Math.min(measured, throttle) : measured
  }

  /** What the buffer holds, after a restart. */
  load(deltas: readonly SealedDelta[]): void {
    this.#backlog = deltas.map(backlogDelta)
  }

  sealed(delta: SealedDelta, cycleMs: number): void {
    // After a verification the engine may have told of it already.
    const others = this.#backlog.filter(({ seq }) => seq !== delta.seq)
    this.#backlog = [...others, backlogDelta(delta)]
    this.#history = withCycle(this.#history, { storedBytes: delta.stats.storedBytes, cycleMs })
    this.evaluate()
  }

  acknowledged(seq: number): void {
    this.#arrived = this.#backlog.findLast((delta) => delta.seq <= seq) ?? this.#arrived
    this.#backlog = this.#backlog.filter((delta) => delta.seq > seq)
  }

  transferred(bytes: number, ms: number): void {
    this.#history = withTransfer(this.#history, { bytes, ms })
    this.evaluate()
  }

  slowDown(slowMs: number): void {
    const bounded = Math.min(Math.max(0, slowMs), limits.slowMaxMs)
    if (bounded === this.#slowMs) return
    this.#slowMs = bounded
    this.#source.touch()
  }

  /** A synchronization is due: deltas mean nothing, and no age was promised. */
  suspend(): void {
    this.#backlog = []
    this.#arrived = null
    this.#forecast = null
    this.#warning = { kind: 'calm' }
  }

  /** Looks ahead anew; raises an event when a breach comes into sight, and one when it is out of sight again. */
  evaluate(): void {
    const { engineState, frequencyMs, deps } = this.#source
    const churn = churnBytesPerSecond(this.#history)
    const arrived = this.#arrived
    const isNewer = arrived !== null && arrived.seq > (engineState?.ackedSeq ?? 0)
    const newestAckedAtMs = isNewer ? arrived.capturedAtMs : (engineState?.ackedCapturedAtMs ?? null)
    if (!engineState || engineState.needsSync !== null || churn === null || newestAckedAtMs === null) return
    const link = this.#source.isTargetLost(frequencyMs / 2) ? 0 : this.linkBytesPerSecond
    const nowMs = deps.clock.now()
    const breachAtMs =
      link === null
        ? null
        : predictBreach({
            nowMs,
            frequencyMs,
            cycleMs: frequencyMs + this.#slowMs,
            newestAckedAtMs,
            pending: this.#backlog.map(({ capturedAtMs, storedBytes }) => ({
              capturedAtMs,
              bytes: storedBytes,
            })),
            churnBytesPerSecond: churn,
            linkBytesPerSecond: link,
          })
    this.#forecast = { churnBytesPerSecond: churn, linkBytesPerSecond: link, breachAtMs }
    const { warning, event } = stepWarning(this.#warning, breachAtMs, nowMs)
    this.#warning = warning
    if (event === 'raised' && breachAtMs !== null) this.#raise(churn, link ?? 0, breachAtMs)
    else if (event === 'over') this.#over()
    this.#source.touch()
  }

  #raise(churn: number, link: number, breachAtMs: number): void {
    const { vmId, frequencyMs, deps } = this.#source
    const when = `${instantText(breachAtMs)}, in ${durationText(breachAtMs - deps.clock.now())}`
    const rates = `changes ${bytesText(churn)}/s, link ${link === 0 ? 'down' : `${bytesText(link)}/s`}`
    const message = `VM ${vmId}: the data at the target will be older than ${durationText(2 * frequencyMs)} at ${when} (${rates})`
    deps.raise({ severity: 'warning', code: 'rpo-breach-forecast', message, vmId })
  }

  #over(): void {
    const { vmId, deps } = this.#source
    const message = `VM ${vmId}: the changes fit through the link again`
    deps.raise({ severity: 'info', code: 'rpo-breach-over', message, vmId })
  }
}

function backlogDelta({ epoch, seq, capturedAtMs, consistency, disks, stats }: SealedDelta): BacklogDelta {
  const { changedBlocks, storedBytes, suspect } = stats
  return {
    epoch,
    seq,
    capturedAtMs,
    consistency,
    suspect: suspect !== '',
    layout: layoutOf(disks),
    changedBlocks,
    storedBytes,
  }
}
