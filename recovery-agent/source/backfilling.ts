import type { SourceVmState } from '#recovery-agent/capture/port.ts'
import { errorDocument, HotsiteError } from '#shared/errors/hotsite-error.ts'
import { keptPoints } from '#shared/policy/catch-up.ts'
import type { Union } from '#shared/policy/newest-first.ts'
import type { OwedRange } from '../buffer/owed.ts'
import { limits } from '../limits.ts'
import type { Source } from './source.ts'
import { pointsText } from './words.ts'

/** What says that the older point, and nothing else, did not come out right. */
const aboutThePoint: ReadonlySet<string> = new Set([
  'backfill-unknown',
  'delta-diverged',
  'layer-damaged',
  'catalog-damaged',
  'tree-damaged',
  'manifest-invalid',
  'block-malformed',
  'stream-malformed',
  'delta-unknown',
])

/**
 * Older points of one VM that are brought to the target below a newer one: which is next, whose turn it is, and the events
 * about it. What is owed is in buffer.db, and only there (buffer/owed.ts).
 */
export class Backfilling {
  readonly #source: Source
  /** At the target, and owed points below them, as far as the engine said. */
  #seen: readonly OwedRange[] = []
  /** Tops of which nothing is owed any more, as it should be, or as was said. */
  readonly #closed = new Set<number>()
  /** Time that is due to older points, because newer ones took it. */
  #dueMs = 0
  #failures: { readonly seq: number; readonly count: number } = { seq: 0, count: 0 }
  #isLong = false

  constructor(source: Source) {
    this.#source = source
  }

  /** Below points that are at the target. */
  get pointCount(): number {
    const { engineState } = this.#source
    if (!engineState) return 0
    return arrivedOf(engineState).reduce((sum, { points }) => sum + points.length, 0)
  }

  /**
   * The oldest range, without points behind its first that retention would no longer keep; undefined: nothing is owed.
   * The first may be at the target already, so the next must stand on it.
   */
  next(state: SourceVmState): OwedRange | undefined {
    const [range] = arrivedOf(state)
    if (!range) return undefined
    const { heldPoints, policy } = this.#source.record
    const known = [...heldPoints, ...state.owed.flatMap(({ points }) => points)]
    const kept = new Set(keptPoints(known, policy).map(({ seq }) => seq))
    return { ...range, points: range.points.filter(({ seq }, i) => i === 0 || kept.has(seq)) }
  }

  /** Newer points first; but when they leave no time, older ones get their share. */
  hasTurn(isNewerWaiting: boolean): boolean {
    return !isNewerWaiting || this.#dueMs >= limits.backfillTurnMs
  }

  /** A newer point took so long while older ones waited. */
  waited(ms: number): void {
    if (this.#source.engineState?.owed.length) this.#dueMs += ms * limits.backfillShare
    else this.#dueMs = 0
  }

  took(ms: number): void {
    this.#dueMs = Math.max(0, this.#dueMs - ms)
  }

  /** A newer point waits, and this turn has had its time. */
  mustPause(elapsedMs: number): boolean {
    const { engineState } = this.#source
    const isWaiting = engineState !== undefined && engineState.sealedSeq > engineState.ackedSeq
    return isWaiting && elapsedMs >= this.#dueMs
  }

  /** Blocks the target holds are sent all the same: it could not use them, or what came of it was wrong. */
  sendsWhole(seq: number): boolean {
    return this.#failures.seq === seq
  }

  /** In the buffer before anything is sent: whatever becomes of the acknowledgement, what is owed stays there. */
  async promise(baseSeq: number, { firstSeq, lastSeq, points }: Union): Promise<void> {
    const { deps, vmId } = this.#source
    await deps.engine.owe(vmId, { baseSeq, topSeq: lastSeq, points: points.map((point) => ({ ...point })) })
    this.#isLong ||= lastSeq - firstSeq + 1 >= limits.catchUpSayCycles
    deps.crashPoint('source:backfill-promised')
  }

  /** Nothing of it is owed any more; `why`: for people, when that is a loss. */
  async close(range: OwedRange, why: string | null): Promise<void> {
    const { deps, vmId, log } = this.#source
    this.#closed.add(range.topSeq)
    await deps.engine.owe(vmId, { ...range, points: [] })
    const { owed } = await this.#source.refresh()
    log.info('older points end', { topSeq: range.topSeq, why })
    if (why !== null) this.#abandoned([range], why)
    else if (this.#isLong && owed.length === 0) {
      this.#isLong = false
      const message = `VM ${vmId}: the points of the time the target was away are there as well`
      deps.raise({ severity: 'info', code: 'backfilled', message, vmId })
    }
  }

  /** What to make of a transfer that failed. After a few times the points are given up. */
  async failed(error: unknown, range: OwedRange, seq: number): Promise<unknown> {
    const { code, message } = errorDocument(error)
    if (!aboutThePoint.has(code)) return error
    this.#failures = { seq, count: this.#failures.seq === seq ? this.#failures.count + 1 : 1 }
    if (code === 'backfill-unknown' || this.#failures.count >= limits.backfillAttempts)
      await this.close(range, message)
    return new HotsiteError('backfill-refused', `point ${seq} of VM ${this.#source.vmId}: ${message}`, {
      cause: error,
    })
  }

  /** What the engine says now. What went without a word here went with a synchronization, or was damaged. */
  observe(state: SourceVmState): void {
    const now = arrivedOf(state)
    const lost = this.#seen.filter(
      ({ topSeq }) => !this.#closed.has(topSeq) && now.every((range) => range.topSeq !== topSeq),
    )
    this.#seen = now
    if (lost.length === 0) return
    for (const { topSeq } of lost) this.#closed.add(topSeq)
    const cause = state.needsSync
    this.#abandoned(lost, cause ? `a synchronization is due (${cause})` : 'they are damaged in the buffer')
  }

  #abandoned(ranges: readonly OwedRange[], why: string): void {
    const { vmId, deps } = this.#source
    const count = ranges.reduce((sum, { points }) => sum + points.length, 0)
    const message = `VM ${vmId}: ${pointsText(count)} of the time the target was away ${count === 1 ? 'is' : 'are'} given up: ${why}. Newer ones are there.`
    deps.raise({ severity: 'warning', code: 'backfill-abandoned', message, vmId })
  }
}

function arrivedOf({ owed, ackedSeq }: SourceVmState): readonly OwedRange[] {
  return owed.filter(({ topSeq }) => topSeq <= ackedSeq)
}
