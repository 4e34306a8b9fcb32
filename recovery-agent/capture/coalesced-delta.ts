/**
 * Consecutive deltas of the buffer read as one (shared/policy/catch-up.ts): the newest version of every block, in
 * ascending order, under the signed description of the last of them. Nothing is written: the rows stay as they are until
 * the target has the point, so a crash at any instant costs nothing. The same rows always give the same batches, which
 * is what lets a transfer resume by batch number.
 *
 * Only for deltas of the same disks with the same sizes: a block beyond the end of a disk that shrank in between would
 * come back.
 */
import { BATCH_BLOCKS, BatchBuilder, type PackedBatch } from '#shared/blocks/batch.ts'
import { BLOCK_BYTES } from '#shared/blocks/block.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { DeltaRow, DeltaRows } from '../buffer/delta-rows.ts'
import type { Pace } from './pace.ts'
import type { CaptureStats, StoredBatch } from './port.ts'

/** Batches kept while one is put together: every delta of the run may be touched, and is read in ascending order. */
const CACHED_BATCHES = 48
/** Entries of one disk: a key holds the block above, the entry below, and both fit into 53 bits. */
const MAX_ENTRIES = 2 ** 21

/** Where the newest version of a block lies. */
interface DiskIndex {
  /** blockIndex * MAX_ENTRIES + entry, ascending. */
  readonly keys: Float64Array
  /** Of each entry: position of its delta in the run, its batch there, its place in the batch. */
  readonly places: readonly (readonly [number, number, number])[]
  readonly storedBytes: number
}

/** Blocks that later deltas have as well, of each disk in the order of the header; undefined: nobody asked. */
type LaterBlocks = readonly ReadonlySet<number>[] | undefined

export class CoalescedDelta {
  readonly #rows: DeltaRows
  readonly #deltas: readonly DeltaRow[]
  readonly #disks: readonly DiskIndex[]
  readonly #later: LaterBlocks
  readonly #cache = new Map<string, PackedBatch>()

  /**
   * Oldest first, without a gap. `later`: the deltas behind it up to the one whose point came first; blocks they do not
   * have can then be named. Throws `buffer-damaged`.
   */
  static async over(
    rows: DeltaRows,
    { deltas, later }: { readonly deltas: readonly DeltaRow[]; readonly later?: readonly DeltaRow[] },
    pace: Pace,
  ): Promise<CoalescedDelta> {
    const last = deltas.at(-1)
    if (!last) throw new RangeError('no delta to read')
    const disks: DiskIndex[] = []
    for (const position of last.header.disks.keys()) disks.push(await indexOf(rows, deltas, position, pace))
    const blocks: Set<number>[] = []
    if (later)
      for (const position of last.header.disks.keys())
        blocks.push(await blocksOf(rows, { deltas: later, last, disk: position }, pace))
    return new CoalescedDelta(rows, { deltas, disks, later: later && blocks })
  }

  private constructor(
    rows: DeltaRows,
    of: {
      readonly deltas: readonly DeltaRow[]
      readonly disks: readonly DiskIndex[]
      readonly later: LaterBlocks
    },
  ) {
    this.#rows = rows
    this.#deltas = of.deltas
    this.#disks = of.disks
    this.#later = of.later
  }

  get first(): DeltaRow {
    return this.#deltas[0] ?? this.last
  }

  get last(): DeltaRow {
    const last = this.#deltas.at(-1)
    if (!last) throw new RangeError('no delta to read')
    return last
  }

  get batchCounts(): readonly number[] {
    return this.#disks.map(({ keys }) => Math.ceil(keys.length / BATCH_BLOCKS))
  }

  /** Of what travels; everything else is that of the last delta. */
  get stats(): CaptureStats {
    const changedBlocks = this.#disks.reduce((sum, { keys }) => sum + keys.length, 0)
    return {
      ...this.last.header.stats,
      changedBlocks,
      changedBytes: changedBlocks * BLOCK_BYTES,
      storedBytes: this.#disks.reduce((sum, { storedBytes }) => sum + storedBytes, 0),
    }
  }

  /**
   * `disk`: its position in the header. `naming`: blocks that no later delta has are only named. Which blocks a batch has
   * does not depend on it. Throws `buffer-damaged`, and `delta-unknown` beyond the end.
   */
  batch(
    disk: number,
    batch: number,
    { naming }: { readonly naming: boolean } = { naming: false },
  ): StoredBatch {
    const index = this.#disks[disk]
    const keys = index?.keys.subarray(batch * BATCH_BLOCKS, (batch + 1) * BATCH_BLOCKS) ?? []
    if (!index || keys.length === 0)
      throw new HotsiteError(
        'delta-unknown',
        `batch ${batch} of a run up to delta ${this.last.seq} does not exist`,
      )
    const builder = new BatchBuilder()
    for (const key of keys) {
      const place = index.places[key % MAX_ENTRIES]
      const blockIndex = Math.floor(key / MAX_ENTRIES)
      if (naming && this.#later && !this.#later[disk]?.has(blockIndex)) builder.addHeld(blockIndex)
      else if (place) builder.add(blockIndex, this.#stored(disk, place))
    }
    return { batch, ...builder.take() }
  }

  #stored(disk: number, [delta, batch, at]: readonly [number, number, number]): Buffer | null {
    const { storedBytes, payload } = this.#cached(disk, delta, batch)
    const length = storedBytes[at] ?? 0
    if (length === 0) return null
    let offset = 0
    for (let before = 0; before < at; before++) offset += storedBytes[before] ?? 0
    return payload.subarray(offset, offset + length)
  }

  #cached(disk: number, position: number, batch: number): PackedBatch {
    const name = `${disk}/${position}/${batch}`
    const found = this.#cache.get(name) ?? this.#read(disk, position, batch)
    // Behind all others: what is used longest ago is first.
    this.#cache.delete(name)
    this.#cache.set(name, found)
    const [oldest] = this.#cache.keys()
    if (this.#cache.size > CACHED_BATCHES && oldest !== undefined) this.#cache.delete(oldest)
    return found
  }

  #read(disk: number, position: number, batch: number): PackedBatch {
    const delta = this.#deltas[position]
    if (!delta) throw new RangeError('no such delta in the run')
    return this.#rows.batch({ delta: delta.delta, disk: diskIn(delta, this.last, disk), batch })
  }
}

async function indexOf(
  rows: DeltaRows,
  deltas: readonly DeltaRow[],
  disk: number,
  pace: Pace,
): Promise<DiskIndex> {
  const last = deltas[deltas.length - 1]
  const seen = new Set<number>()
  const keys: number[] = []
  const places: (readonly [number, number, number])[] = []
  let storedBytes = 0
  for (let position = deltas.length - 1; position >= 0; position--) {
    const delta = deltas[position]
    if (!delta || !last) continue
    const from = diskIn(delta, last, disk)
    const batchCount = delta.header.disks[from]?.batchCount ?? 0
    for (let batch = 0; batch < batchCount; batch++) {
      const packed = rows.batch({ delta: delta.delta, disk: from, batch })
      for (const [at, blockIndex] of packed.blockIndexes.entries()) {
        if (seen.has(blockIndex)) continue
        seen.add(blockIndex)
        if (places.length >= MAX_ENTRIES) throw new RangeError('a run of deltas has too many blocks')
        keys.push(blockIndex * MAX_ENTRIES + places.length)
        places.push([position, batch, at])
        storedBytes += packed.storedBytes[at] ?? 0
      }
      const pause = pace.pauseIfDue()
      if (pause) await pause
    }
  }
  return { keys: Float64Array.from(keys).sort(), places, storedBytes }
}

async function blocksOf(
  rows: DeltaRows,
  { deltas, last, disk }: { deltas: readonly DeltaRow[]; last: DeltaRow; disk: number },
  pace: Pace,
): Promise<Set<number>> {
  const blocks = new Set<number>()
  for (const delta of deltas) {
    const from = diskIn(delta, last, disk)
    const batchCount = delta.header.disks[from]?.batchCount ?? 0
    for (let batch = 0; batch < batchCount; batch++) {
      for (const blockIndex of rows.blockIndexes({ delta: delta.delta, disk: from, batch }))
        blocks.add(blockIndex)
      const pause = pace.pauseIfDue()
      if (pause) await pause
    }
  }
  return blocks
}

/** Position in `delta` of the disk at position `disk` in `last`. */
function diskIn(delta: DeltaRow, last: DeltaRow, disk: number): number {
  const wanted = last.header.disks[disk]
  const found = delta.header.disks.findIndex(
    ({ diskId, sizeBytes }) => diskId === wanted?.diskId && sizeBytes === wanted.sizeBytes,
  )
  if (found < 0 || delta.header.disks.length !== last.header.disks.length)
    throw new RangeError(`deltas ${delta.seq} and ${last.seq} are not of the same disks`)
  return found
}
