import type { PayloadSlots } from '#shared/blocks/payload-slots.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { VmId } from '#shared/ids.ts'
import type { DeltaRow, DeltaRows } from '../buffer/delta-rows.ts'
import { damagedRow } from '../buffer/row-checksum.ts'
import type { VmRow } from '../buffer/vm-rows.ts'
import { CoalescedDelta } from './coalesced-delta.ts'
import { NewestPayload } from './kept-payload.ts'
import type { Pace } from './pace.ts'
import type { BatchRequest, SealedDelta, StoredBatch } from './port.ts'

interface Run {
  readonly rows: DeltaRows
  readonly delta: CoalescedDelta
}

interface RunKey {
  readonly vmId: VmId
  readonly firstSeq: number
  readonly lastSeq: number
}

/**
 * What rests sealed in the buffer, one by one or several as one. Remembers for each VM the run that is being sent; it is
 * made anew from the rows when it is not there. Everything throws `buffer-damaged` for what is not as it was written.
 */
export class SealedDeltas {
  /** Of the delta that was captured last. */
  readonly kept: NewestPayload
  readonly #pace: Pace
  readonly #runs = new Map<VmId, Run>()
  /** Of the older points that are owed: both kinds are sent by turns. */
  readonly #owed = new Map<VmId, Run & { readonly topSeq: number }>()

  constructor(pace: Pace, slots: PayloadSlots | undefined) {
    this.#pace = pace
    this.kept = new NewestPayload(slots)
  }

  async next(
    rows: DeltaRows,
    row: VmRow,
    { afterSeq, throughSeq }: { readonly afterSeq: number; readonly throughSeq: number | undefined },
  ): Promise<SealedDelta | undefined> {
    const from = Math.max(afterSeq, row.ackedSeq)
    const delta = rows.next(row.vmId, from)
    // A cursor says what must be there: without a gap up to the sealed seq.
    if (from < row.sealedSeq && delta?.seq !== from + 1)
      throw damagedRow('deltas', `of VM ${row.vmId}, seq ${from + 1}`, 'it is gone')
    if (!delta || throughSeq === undefined || throughSeq <= delta.seq)
      return delta && sealedDelta(row.vmId, delta)
    return describe(
      row.vmId,
      await this.#run(rows, { vmId: row.vmId, firstSeq: delta.seq, lastSeq: throughSeq }),
    )
  }

  /** undefined: it is not owed. */
  async owed(
    rows: DeltaRows,
    { vmId, owed }: VmRow,
    { baseSeq, seq }: { readonly baseSeq: number; readonly seq: number },
  ): Promise<SealedDelta | undefined> {
    const range = owed.find((one) => one.baseSeq === baseSeq && seq < one.topSeq)
    if (!range) return undefined
    const { topSeq } = range
    return describe(vmId, await this.#owedRun(rows, { vmId, firstSeq: baseSeq + 1, lastSeq: seq }, topSeq))
  }

  pending(rows: DeltaRows, row: VmRow): readonly SealedDelta[] {
    const found: SealedDelta[] = []
    for (let seq = row.ackedSeq; ; ) {
      const delta = rows.next(row.vmId, seq)
      if (!delta) return found
      found.push(sealedDelta(row.vmId, delta))
      seq = delta.seq
    }
  }

  /** Throws `delta-unknown` as well. */
  async batch(rows: DeltaRows, request: BatchRequest): Promise<StoredBatch> {
    const { vmId, seq, firstSeq = seq, diskId, batch, owed } = request
    const delta = rows.bySeq(vmId, seq)
    const disk = delta?.header.disks.findIndex((candidate) => candidate.diskId === diskId) ?? -1
    const key = { vmId, firstSeq, lastSeq: seq }
    if (delta && disk >= 0 && owed)
      return (await this.#owedRun(rows, key, owed.topSeq)).batch(disk, batch, { naming: !owed.whole })
    if (delta && disk >= 0 && firstSeq < seq) return (await this.#run(rows, key)).batch(disk, batch)
    if (delta && batch < (delta.header.disks[disk]?.batchCount ?? 0)) {
      const place = { delta: delta.delta, disk, batch }
      const { blockIndexes, storedBytes, payload } = this.kept.take(place) ?? rows.batch(place)
      return { batch, blockIndexes, storedBytes, payload }
    }
    const message = `batch ${batch} of disk ${diskId} of delta ${seq} is not in the buffer`
    throw new HotsiteError('delta-unknown', message, { details: { ...request } })
  }

  /** The rows of a run are gone, or about to go. */
  forget(vmId: VmId): void {
    this.#runs.delete(vmId)
  }

  forgetOwed(vmId: VmId): void {
    this.#owed.delete(vmId)
  }

  async #run(rows: DeltaRows, key: RunKey): Promise<CoalescedDelta> {
    const { vmId } = key
    const known = this.#runs.get(vmId)
    if (known && isRun(known, rows, key)) return known.delta
    this.#runs.delete(vmId)
    const delta = await CoalescedDelta.over(rows, { deltas: deltasOf(rows, key) }, this.#pace)
    this.#runs.set(vmId, { rows, delta })
    return delta
  }

  async #owedRun(rows: DeltaRows, key: RunKey, topSeq: number): Promise<CoalescedDelta> {
    const { vmId, lastSeq } = key
    const known = this.#owed.get(vmId)
    if (known && known.topSeq === topSeq && isRun(known, rows, key)) return known.delta
    this.#owed.delete(vmId)
    const later = deltasOf(rows, { vmId, firstSeq: lastSeq + 1, lastSeq: topSeq })
    const delta = await CoalescedDelta.over(rows, { deltas: deltasOf(rows, key), later }, this.#pace)
    this.#owed.set(vmId, { rows, delta, topSeq })
    return delta
  }
}

function isRun({ rows, delta }: Run, now: DeltaRows, { firstSeq, lastSeq }: RunKey): boolean {
  return rows === now && delta.first.seq === firstSeq && delta.last.seq === lastSeq
}

function deltasOf(rows: DeltaRows, { vmId, firstSeq, lastSeq }: RunKey): DeltaRow[] {
  const deltas: DeltaRow[] = []
  for (let seq = firstSeq; seq <= lastSeq; seq++) {
    const delta = rows.bySeq(vmId, seq)
    if (!delta) throw new HotsiteError('delta-unknown', `delta ${seq} of VM ${vmId} is not in the buffer`)
    deltas.push(delta)
  }
  return deltas
}

export function sealedDelta(vmId: VmId, { seq, epoch, header, manifest }: DeltaRow): SealedDelta {
  return { vmId, epoch, seq, firstSeq: seq, ...header, manifest }
}

function describe(vmId: VmId, run: CoalescedDelta): SealedDelta {
  const { batchCounts, stats } = run
  const last = sealedDelta(vmId, run.last)
  return {
    ...last,
    firstSeq: run.first.seq,
    baseSeq: run.first.header.baseSeq,
    disks: last.disks.map((disk, position) => ({ ...disk, batchCount: batchCounts[position] ?? 0 })),
    stats,
  }
}
