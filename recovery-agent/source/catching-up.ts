import type { SealedDelta, SourceVmState } from '#recovery-agent/capture/port.ts'
import type { ReplicationReport } from '#shared/messages/reports.ts'
import { type CatchUpRun, type KnownPoint, keptPoints, planCatchUp } from '#shared/policy/catch-up.ts'
import { planUnion } from '#shared/policy/newest-first.ts'
import { transferSeconds } from '#shared/policy/timetable.ts'
import { limits } from '../limits.ts'
import type { Source } from './source.ts'
import { bytesText, durationText, pointsText } from './words.ts'

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
   * The deltas to send next, as one: up to the newest, if the older points among them can follow. What was chosen once
   * stays chosen until it arrived: the target resumes only what is announced the same.
   */
  async nextRun(
    { ackedSeq, ackedLayout, owed }: SourceVmState,
    takesBackfills: boolean,
  ): Promise<(CatchUpRun & { readonly isUnion: boolean }) | undefined> {
    const { record, flow, backfilling } = this.#source
    const waits = (lastSeq: number) => flow.backlog.some(({ seq }) => seq === lastSeq)
    const promised = owed.find(({ topSeq }) => topSeq > ackedSeq)
    if (promised) {
      const { baseSeq, topSeq } = promised
      if (takesBackfills && baseSeq === ackedSeq && waits(topSeq))
        return { firstSeq: ackedSeq + 1, lastSeq: topSeq, isUnion: true }
      await backfilling.close(promised, null)
    }
    const chosen = record.catchUp
    if (chosen?.firstSeq === ackedSeq + 1 && waits(chosen.lastSeq)) return { ...chosen, isUnion: false }
    const pending = flow.backlog.filter(({ seq }) => seq > ackedSeq)
    const maxBlocks = limits.catchUpIndexBlocks
    const held = [...record.heldPoints, ...owed.flatMap(({ points }) => points)]
    const runs = planCatchUp({ held, pending, policy: record.policy, maxBlocks })
    const mayOwe = takesBackfills && owed.length < limits.backfillsPerVm
    const union = mayOwe ? planUnion({ runs, pending, baseLayout: ackedLayout, maxBlocks }) : undefined
    if (union) {
      await backfilling.promise(ackedSeq, union)
      return { ...union, isUnion: true }
    }
    const [run] = runs
    const several = run && run.firstSeq < run.lastSeq ? run : null
    if (several !== null || chosen !== null) this.#source.note({ catchUp: several })
    return run && { ...run, isUnion: false }
  }

  /** An older point arrived below the newest. */
  backfilled(arrival: Arrival): void {
    const others = this.#source.record.heldPoints.filter(({ seq }) => seq !== arrival.seq)
    const heldPoints = keptPoints([...others, pointOf(arrival)], this.#source.record.policy)
    this.#source.note({ heldPoints: heldPoints.map((kept) => ({ ...kept })) })
  }

  /** A point arrived; what retention makes of it is known without asking. */
  arrived(arrival: Arrival): void {
    const { seq } = arrival
    const { record, flow } = this.#source
    const known = record.heldPoints.filter((held) => held.seq < seq)
    flow.acknowledged(seq)
    const heldPoints = keptPoints([...known, pointOf(arrival)], record.policy).map((kept) => ({ ...kept }))
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
    const { vmId, deps, flow, backfilling } = this.#source
    if (!this.#said || flow.backlog.length > 1) return
    this.#said = false
    const { pointCount } = backfilling
    const older = pointCount > 0 ? `; ${pointsText(pointCount)} of the time before still to come` : ''
    const message = `VM ${vmId}: the target has caught up${older}`
    deps.raise({ severity: 'info', code: 'caught-up', message, vmId })
  }
}

function pointOf({ epoch, seq, capturedAtMs, consistency, stats }: Arrival): KnownPoint {
  return { epoch, seq, capturedAtMs, consistency, suspect: stats.suspect !== '' }
}
