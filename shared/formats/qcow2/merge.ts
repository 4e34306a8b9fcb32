/**
 * Merging layers into the file of the lowest one, in small steps.
 *
 * Afterwards the lower file reads like all of them, with the size of the newest. Of a block that several layers have,
 * only the newest version is copied. The work goes through the disk in windows of tables; within each, data and
 * refcounts are on stable storage before an L2 table points to them, and at the end L2 tables before the L1 table and
 * the header; what became free is released last. So a table never points to what is not there, and a cluster in use
 * never looks free.
 *
 * The tables alone are believed, never the refcounts: whatever an earlier attempt allocated and never referenced counts
 * as free. After a crash it is run again from the start, from whatever the tables then say. A cluster that becomes free
 * is not used again in the same run, and tables keep their places, for those who have the file open.
 *
 * Memory does not depend on the size of the layers but for one bit for each cluster of the lower file (two once
 * clusters become free), and four bytes for each table; a file ends at 16 TiB, where one refcount table cluster does.
 */
import { assert } from '#shared/assert.ts'
import { blockCountOf } from '#shared/blocks/block.ts'
import { ABSENT, L2_ENTRIES } from './cluster-map.ts'
import { CLUSTER_BYTES, encodeHeader } from './header.ts'
import { type LayerTables, readTable } from './layer-reader.ts'
import { planTable, type TablePlan } from './merge-plan.ts'
import {
  ClusterUse,
  coverWithRefcounts,
  ENTRIES_PER_CLUSTER,
  encodeL2,
  encodeReferences,
  l1EntriesOf,
  REFCOUNTS_PER_BLOCK,
} from './tables.ts'

/** Between any two of these the process may die; the merge is then run again from the start. */
export const mergeSteps = [
  'data-written',
  'refcounts-written',
  'refcounts-synced',
  'l2-written',
  'l2-synced',
  'l1-written',
  'l1-synced',
  'freed-written',
  'freed-synced',
] as const
export type MergeStep = (typeof mergeSteps)[number]

/** Changed tables held at a time: 2 MiB, and 32 GiB of disk between two rounds of fsync. */
const WINDOW_TABLES = 64
/** Copied between two fsyncs: what one of them may have to wait for. */
const SYNC_BYTES = 8 << 20
/** Holes punched in one step. */
const PUNCHES_PER_STEP = 64
/** The layers of one merge are read side by side: so many files are open. */
export const MAX_MERGED_LAYERS = 32

/** A step of the work is done: one run of a table plan copied, or one table read. */
export interface MergeProgress {
  readonly copiedBytes: number
}

export interface MergeOutcome {
  /** Data and zero blocks of the merged layer. */
  readonly blockCount: number
}

export interface CopiedBlocks {
  readonly upperIndex: number
  readonly blockIndexes: readonly number[]
  /** Valid during the call. */
  readonly bytes: Buffer
}

export interface MergeLayers {
  readonly lower: LayerTables
  /** Newest first, at least one. */
  readonly uppers: readonly LayerTables[]
  /** Sees what was read of the upper layers before it is written. */
  readonly onCopied?: (copied: CopiedBlocks) => void
  readonly step?: (step: MergeStep) => void
}

/** Throws `layer-damaged`; what was done by then harms nobody. */
export function mergeLayers(layers: MergeLayers): Generator<MergeProgress, MergeOutcome> {
  assert(
    layers.uppers.length >= 1 && layers.uppers.length < MAX_MERGED_LAYERS,
    'a merge has a bounded number of layers',
  )
  return new Merge(layers).run()
}

const NOTHING: MergeProgress = { copiedBytes: 0 }

class Merge {
  readonly #lower: LayerTables
  readonly #uppers: readonly LayerTables[]
  readonly #step: (step: MergeStep) => void
  readonly #onCopied: (copied: CopiedBlocks) => void
  readonly #sizeBytes: number
  /** Everything referenced before or after: what refcounts must cover while tables change. */
  readonly #use = new ClusterUse()
  readonly #freed = new ClusterUse()
  /** An L1 table that had to move. Who has the file open may read it again: its room is not given back yet. */
  #left: readonly number[] = []
  readonly #entryCounts: number[] = []
  readonly #l2Clusters: number[]
  #refcountBlocks: number[]
  /** Refcount blocks that cover a cluster taken since the last window. */
  readonly #taken = new Set<number>()
  #window = new Map<number, Int32Array>()
  #unsyncedBytes = 0
  /** Of what is copied, as large as the largest run so far. */
  #buffer: Buffer = Buffer.alloc(0)
  /** For a table that is being written. */
  readonly #cluster = Buffer.alloc(CLUSTER_BYTES)

  constructor({ lower, uppers, onCopied = () => {}, step = () => {} }: MergeLayers) {
    this.#lower = lower
    this.#uppers = uppers
    this.#step = step
    this.#onCopied = onCopied
    this.#sizeBytes = uppers[0]?.header.sizeBytes ?? 0
    const l1Entries = Math.max(l1EntriesOf(this.#sizeBytes), lower.header.l1Entries)
    this.#l2Clusters = Array.from({ length: l1Entries }, (_, i) => lower.l2Clusters[i] ?? 0)
    this.#refcountBlocks = [...lower.refcountBlocks]
  }

  *run(): Generator<MergeProgress, MergeOutcome> {
    yield* this.#scan()
    for (let tableIndex = 0; tableIndex < this.#l2Clusters.length; tableIndex++) {
      if (!this.#isTouched(tableIndex)) continue
      yield* this.#mergeTable(tableIndex)
      if (this.#window.size >= WINDOW_TABLES) yield* this.#endWindow()
    }
    yield* this.#endWindow()
    this.#writeL1AndHeader()
    yield NOTHING
    yield* this.#release()
    return { blockCount: this.#entryCounts.reduce((sum, count) => sum + count, 0) }
  }

  /** Every cluster the tables of the lower layer reference, the tables included. */
  *#scan(): Generator<MergeProgress, void> {
    const { header, l2Clusters, refcountBlocks } = this.#lower
    const use = this.#use
    use.add(0)
    for (const cluster of clustersOf(header.l1Offset, header.l1Entries)) use.add(cluster)
    for (let i = 0; i < header.refcountTableClusters; i++)
      use.add(header.refcountTableOffset / CLUSTER_BYTES + i)
    for (const cluster of l2Clusters) if (cluster > 0) use.add(cluster)
    for (const cluster of refcountBlocks) if (cluster > 0) use.add(cluster)
    for (let tableIndex = 0; tableIndex < l2Clusters.length; tableIndex++) {
      const table = readTable(this.#lower, tableIndex)
      if (!table) continue
      let entries = 0
      for (const state of table) {
        if (state !== ABSENT) entries++
        if (state > 0) use.add(state)
      }
      this.#entryCounts[tableIndex] = entries
      yield NOTHING
    }
  }

  #isTouched(tableIndex: number): boolean {
    if (this.#uppers.some((upper) => (upper.l2Clusters[tableIndex] ?? 0) > 0)) return true
    // What is past the end of a disk that shrank goes.
    const end = (tableIndex + 1) * L2_ENTRIES
    return end > blockCountOf(this.#sizeBytes) && (this.#entryCounts[tableIndex] ?? 0) > 0
  }

  *#mergeTable(tableIndex: number): Generator<MergeProgress, void> {
    const plan = planTable({
      lower: readTable(this.#lower, tableIndex),
      uppers: this.#uppers.map((upper) => readTable(upper, tableIndex)),
      lowerHasBacking: this.#lower.header.backingName !== null,
      blockCount: blockCountOf(this.#sizeBytes) - tableIndex * L2_ENTRIES,
      allocate: () => this.#take(this.#use.allocate()),
    })
    this.#entryCounts[tableIndex] = plan.entryCount
    for (const cluster of plan.freed) this.#freed.add(cluster)
    yield NOTHING
    yield* this.#copy(plan, tableIndex)
    if (!plan.isChanged) return
    this.#window.set(tableIndex, plan.table)
    this.#l2Clusters[tableIndex] ||= this.#take(this.#use.allocate())
  }

  *#copy({ copies }: TablePlan, tableIndex: number): Generator<MergeProgress, void> {
    for (const run of copies) {
      const bytes = this.#room(run.count * CLUSTER_BYTES)
      this.#uppers[run.upperIndex]?.file.read(bytes, run.from * CLUSTER_BYTES)
      const blockIndexes = run.blocks.map((block) => tableIndex * L2_ENTRIES + block)
      this.#onCopied({ upperIndex: run.upperIndex, blockIndexes, bytes })
      this.#lower.file.write([bytes], run.to * CLUSTER_BYTES)
      this.#unsyncedBytes += bytes.length
      if (this.#unsyncedBytes >= SYNC_BYTES) {
        this.#lower.file.sync()
        this.#unsyncedBytes = 0
      }
      yield { copiedBytes: bytes.length }
    }
  }

  #room(sizeBytes: number): Buffer {
    if (this.#buffer.length < sizeBytes) this.#buffer = Buffer.allocUnsafe(sizeBytes)
    return this.#buffer.subarray(0, sizeBytes)
  }

  #take(cluster: number): number {
    this.#taken.add(Math.floor(cluster / REFCOUNTS_PER_BLOCK))
    return cluster
  }

  *#endWindow(): Generator<MergeProgress, void> {
    const { file } = this.#lower
    this.#step('data-written')
    this.#writeTakenRefcounts()
    this.#step('refcounts-written')
    file.sync()
    this.#unsyncedBytes = 0
    this.#step('refcounts-synced')
    yield NOTHING
    for (const [tableIndex, table] of this.#window) {
      file.write([encodeL2(table, this.#cluster)], (this.#l2Clusters[tableIndex] ?? 0) * CLUSTER_BYTES)
      yield NOTHING
    }
    this.#step('l2-written')
    file.sync()
    this.#step('l2-synced')
    this.#window = new Map()
    yield NOTHING
  }

  #writeTakenRefcounts(): void {
    const { file, header } = this.#lower
    const before = this.#refcountBlocks
    this.#refcountBlocks = coverWithRefcounts(this.#use, before)
    assert(
      this.#refcountBlocks.length <= header.refcountTableClusters * ENTRIES_PER_CLUSTER,
      'a layer of more than 16 TiB',
    )
    const isGrown = this.#refcountBlocks.some((cluster, i) => cluster !== before[i])
    if (isGrown) {
      for (const [i, cluster] of this.#refcountBlocks.entries())
        if (cluster !== before[i]) this.#taken.add(i).add(Math.floor(cluster / REFCOUNTS_PER_BLOCK))
    }
    file.truncate(Math.max(file.sizeBytes(), this.#use.end * CLUSTER_BYTES))
    for (const i of this.#taken) {
      const cluster = this.#refcountBlocks[i]
      if (cluster) file.write([this.#use.refcountBlock(i, this.#cluster)], cluster * CLUSTER_BYTES)
    }
    this.#taken.clear()
    if (!isGrown) return
    const offsets = this.#refcountBlocks.map((cluster) => cluster * CLUSTER_BYTES)
    file.write([encodeReferences(offsets, 'plain', this.#cluster)], header.refcountTableOffset)
  }

  #writeL1AndHeader(): void {
    const { file, header } = this.#lower
    const isLonger = this.#l2Clusters.length !== header.l1Entries
    const clustersBefore = clustersOf(header.l1Offset, header.l1Entries)
    const clusters = Math.max(1, Math.ceil(this.#l2Clusters.length / ENTRIES_PER_CLUSTER))
    let l1Offset = header.l1Offset
    if (clusters > clustersBefore.length) {
      const first = this.#use.allocateRun(clusters)
      for (let i = 0; i < clusters; i++) this.#take(first + i)
      this.#left = clustersBefore
      this.#writeTakenRefcounts()
      file.sync()
      l1Offset = first * CLUSTER_BYTES
    }
    const offsets = this.#l2Clusters.map((cluster) => cluster * CLUSTER_BYTES)
    file.write([encodeReferences(offsets, 'copied', this.#cluster)], l1Offset)
    if (isLonger || this.#sizeBytes !== header.sizeBytes) {
      // The header names the L1 table and its length: it may only do so once they are there.
      file.sync()
      const bytes = Buffer.alloc(4096)
      encodeHeader({
        ...header,
        sizeBytes: this.#sizeBytes,
        l1Offset,
        l1Entries: this.#l2Clusters.length,
      }).copy(bytes)
      file.write([bytes], 0)
    }
    this.#step('l1-written')
    file.sync()
    this.#step('l1-synced')
  }

  /** Refcounts become exactly what the tables say, also where an earlier attempt left them too high; then the room goes. */
  *#release(): Generator<MergeProgress, void> {
    const { file } = this.#lower
    for (const cluster of this.#freed.clusters()) this.#use.remove(cluster)
    for (const cluster of this.#left) this.#use.remove(cluster)
    const stored = Buffer.allocUnsafe(CLUSTER_BYTES)
    for (const [i, cluster] of this.#refcountBlocks.entries()) {
      const wanted = this.#use.refcountBlock(i, this.#cluster)
      file.read(stored, cluster * CLUSTER_BYTES)
      if (!stored.equals(wanted)) file.write([wanted], cluster * CLUSTER_BYTES)
      yield NOTHING
    }
    this.#step('freed-written')
    file.sync()
    this.#step('freed-synced')
    yield NOTHING
    let punches = 0
    for (const run of neighbours(this.#freed.clusters())) {
      file.punchHole(run.first * CLUSTER_BYTES, run.count * CLUSTER_BYTES)
      if (++punches % PUNCHES_PER_STEP === 0) yield NOTHING
    }
  }
}

/** Of an L1 table. */
function clustersOf(offsetBytes: number, entries: number): number[] {
  const first = offsetBytes / CLUSTER_BYTES
  return Array.from({ length: Math.max(1, Math.ceil(entries / ENTRIES_PER_CLUSTER)) }, (_, i) => first + i)
}

function* neighbours(clusters: Iterable<number>): Generator<{ first: number; count: number }, void> {
  let run: { first: number; count: number } | undefined
  for (const cluster of clusters) {
    if (run && run.first + run.count === cluster) run.count++
    else {
      if (run) yield run
      run = { first: cluster, count: 1 }
    }
  }
  if (run) yield run
}
