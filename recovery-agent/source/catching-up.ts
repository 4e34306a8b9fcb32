import type { SealedDelta } from '#recovery-agent/capture/port.ts'
import type { ReplicationReport } from '#shared/messages/reports.ts'
import { type CatchUpRun, keptPoints, planCatchUp } from '#shared/policy/catch-up.ts'
import { transferSeconds } from '#shared/policy/timetable.ts'
import { limits } from '../limits.ts'
import type { Source } from './source.ts'
import { bytesText, durationText } from './words.ts'

/** A point that the target holds now: the end of a delta, of a run, or of a synchronization. */
export type Arrival = Pick<SealedDelta, 'epoch' | 'seq' | 'capturedAtMs' | 'consistency'> & {
  readonly stats: Pick<SealedDelta['stats'], 'suspect'>
}

/** A backlog of one VM on its way: which deltas travel as one, how far behind the target is, and the events about it. */
export class CatchingUp {
  readonly #source: Source
  #said = false

  constructor(source: Source) {
    this.#source = source
  }

  /**
   * The deltas to send next, as one. What was chosen once stays chosen until it arrived: the target resumes only what is
   * announced the same.
   */
  nextRun(ackedSeq: number): CatchUpRun | undefined {
    const { record, flow } = this.#source
    const { backlog } = flow
    const chosen = record.catchUp
    if (chosen?.firstSeq === ackedSeq + 1 && backlog.some(({ seq }) => seq === chosen.lastSeq)) return chosen
    const [run] = planCatchUp({
      held: record.heldPoints,
      pending: backlog.filter(({ seq }) => seq > ackedSeq),
      policy: record.policy,
      maxBlocks: limits.catchUpIndexBlocks,
    })
    const several = run && run.firstSeq < run.lastSeq ? run : null
    if (several !== null || chosen !== null) this.#source.note({ catchUp: several })
    return run
  }

  /** A point arrived; what retention makes of it is known without asking. */
  arrived(arrival: Arrival): void {
    const { epoch, seq, capturedAtMs, consistency, stats } = arrival
    const { record, flow } = this.#source
    const point = { epoch, seq, capturedAtMs, consistency, suspect: stats.suspect !== '' }
    const known = record.heldPoints.filter((held) => held.seq < seq)
    flow.acknowledged(seq)
    const heldPoints = keptPoints([...known, point], record.policy).map((kept) => ({ ...kept }))
    this.#source.note({ heldPoints, catchUp: null })
    this.#sayWhenOver()
  }

  /** Connected again: says how far behind, once for each time. */
  begin(): void {
    const report = this.report()
    if (report === null || this.#said || report.pendingCycles < limits.catchUpSayCycles) return
    this.#said = true
    const { vmId, deps, engineState } = this.#source
    const ackedAtMs = engineState?.ackedCapturedAtMs ?? null
    const age =
      ackedAtMs === null ? '' : `, its newest point is ${durationText(deps.clock.now() - ackedAtMs)} old`
    const end =
      report.secondsLeft === null ? '' : `; caught up in about ${durationText(report.secondsLeft * 1000)}`
    const message = `VM ${vmId}: the target is ${report.pendingCycles} copy cycles behind${age}; at most ${bytesText(report.sendBytes)} travel${end}`
    deps.raise({ severity: 'info', code: 'catching-up', message, vmId })
  }

  /** null: nothing waits but what the present cycle made. */
  report(): ReplicationReport['catchUp'] {
    const { flow, record, deps, offsetAt } = this.#source
    const { backlog } = flow
    if (backlog.length < 2) return null
    const bytes = backlog.reduce((sum, { storedBytes }) => sum + storedBytes, 0)
    const link = { bytes, linkBytesPerSecond: flow.linkBytesPerSecond, atMs: deps.clock.now() }
    return {
      pendingCycles: backlog.length,
      sendBytes: bytes,
      secondsLeft: transferSeconds(record.policy, link, offsetAt),
    }
  }

  #sayWhenOver(): void {
    const { vmId, deps, flow } = this.#source
    if (!this.#said || flow.backlog.length > 1) return
    this.#said = false
    deps.raise({ severity: 'info', code: 'caught-up', message: `VM ${vmId}: the target has caught up`, vmId })
  }
}
