/**
 * Writes one layer from front to back: cluster 0 stays empty for the header, data clusters follow as blocks come,
 * and `seal` appends the tables and writes the header last. A file without its header is no qcow2 file at all, so an
 * unfinished layer is never mistaken for a whole one.
 *
 * Blocks may come again before the seal. One that was written since the last `markDurable` is overwritten in place;
 * one that is durable, and therefore recorded in somebody's journal, goes to another cluster, and its old one becomes
 * free with the next `markDurable`: what a journal says about a cluster is true through any crash.
 */
import { assert } from '#shared/assert.ts'
import { blockCountOf } from '#shared/blocks/block.ts'
import type { BlockFile } from '../block-file.ts'
import { ABSENT, type BlockState, ClusterMap, L2_ENTRIES, ZERO } from './cluster-map.ts'
import { CLUSTER_BYTES, encodeHeader } from './header.ts'
import {
  ClusterUse,
  ENTRIES_PER_CLUSTER,
  encodeL2,
  encodeReferences,
  l1EntriesOf,
  PAGE_BYTES,
  REFCOUNTS_PER_BLOCK,
  withoutTrailingZeros,
} from './tables.ts'

export interface SealOptions {
  readonly sizeBytes: number
  /** Relative to the folder of the layer; null makes it a base. */
  readonly backingName: string | null
  /** Called between the durable steps, so that a test may stop there. */
  readonly step?: (step: 'tables-written' | 'header-written') => void
}

export class LayerWriter {
  readonly #file: BlockFile
  readonly #map = new ClusterMap()
  readonly #use = new ClusterUse()
  /** Blocks whose cluster nobody recorded as durable yet. */
  readonly #fresh = new Set<number>()
  #freed: number[] = []

  constructor(file: BlockFile) {
    this.#file = file
    this.#use.add(0)
  }

  /** What an earlier life wrote and recorded; call in the order it was recorded, before the first `put`. */
  restore(blockIndex: number, state: BlockState): void {
    const old = this.#map.get(blockIndex)
    if (old > 0) this.#use.remove(old)
    if (state > 0) this.#use.add(state)
    this.#map.set(blockIndex, state)
  }

  state(blockIndex: number): BlockState {
    return this.#map.get(blockIndex)
  }

  /** null: a zero block. Answers where each block went. */
  put(blockIndexes: readonly number[], blocks: readonly (Buffer | null)[]): BlockState[] {
    const states = blockIndexes.map((blockIndex, i) => this.#place(blockIndex, blocks[i] ?? null))
    let run: Buffer[] = []
    let runStart = 0
    const flush = () => {
      if (run.length > 0) this.#file.write(run, runStart * CLUSTER_BYTES)
      run = []
    }
    states.forEach((state, i) => {
      const block = blocks[i]
      if (!block) return
      assert(block.length === CLUSTER_BYTES, 'a block is 64 KiB')
      if (run.length === 0 || state !== runStart + run.length) {
        flush()
        runStart = state
      }
      run.push(block)
    })
    flush()
    return states
  }

  /** A cluster for a block whose content is to come later; until then it is a hole. */
  reserve(blockIndex: number): void {
    this.#place(blockIndex, 'data')
  }

  #place(blockIndex: number, block: Buffer | 'data' | null): BlockState {
    const old = this.#map.get(blockIndex)
    if (block && old > 0 && this.#fresh.has(blockIndex)) return old
    if (old > 0) this.#freed.push(old)
    const state = block ? this.#use.allocate() : ZERO
    this.#map.set(blockIndex, state)
    this.#fresh.add(blockIndex)
    return state
  }

  /** Everything put so far is on stable storage and recorded. */
  markDurable(): void {
    for (const cluster of this.#freed) this.#use.remove(cluster)
    this.#freed = []
    this.#fresh.clear()
  }

  /**
   * Blocks of this range that the layer does not have read as zeros, whatever is below: a disk that was shrunk and
   * grew again must not show its past.
   */
  hide(fromBlock: number, toBlock: number): void {
    for (let blockIndex = fromBlock; blockIndex < toBlock; blockIndex++) {
      if (this.#map.get(blockIndex) === ABSENT) this.#map.set(blockIndex, ZERO)
    }
  }

  /** Blocks that are not absent, ascending. */
  entries(): Generator<readonly [blockIndex: number, state: BlockState]> {
    return this.#map.entries()
  }

  /** Bytes of data clusters and zero blocks in this layer. */
  changedBytes(): number {
    let count = 0
    for (const _ of this.#map.entries()) count++
    return count * CLUSTER_BYTES
  }

  /**
   * Tables, header, fsync. Repeatable after a crash, from the same recorded blocks. The file gets the name by which
   * others find it only after that.
   */
  seal({ sizeBytes, backingName, step = () => {} }: SealOptions): void {
    this.markDurable()
    this.#dropFrom(blockCountOf(sizeBytes))
    this.#file.truncate(this.#use.end * CLUSTER_BYTES)
    const l1 = new Array<number>(l1EntriesOf(sizeBytes)).fill(0)
    // One for all tables, each written before the next: a thousand left to the collector are 64 MiB.
    const scratch = Buffer.alloc(CLUSTER_BYTES)
    for (const tableIndex of this.#map.tableIndexes()) {
      const table = this.#map.table(tableIndex)
      if (!table || !isWorthWriting(table, backingName)) continue
      const cluster = this.#use.allocateRun(1)
      l1[tableIndex] = cluster * CLUSTER_BYTES
      this.#writeFresh(encodeL2(backingName === null ? withoutZeros(table) : table, scratch), cluster)
    }
    const l1Clusters = Math.max(1, Math.ceil(l1.length / ENTRIES_PER_CLUSTER))
    const l1Start = this.#use.allocateRun(l1Clusters)
    this.#writeFresh(encodeReferences(l1, 'copied', scratch), l1Start)
    const refcounts = this.#writeRefcounts(scratch)
    this.#file.truncate(this.#use.end * CLUSTER_BYTES)
    step('tables-written')
    const header = encodeHeader({
      sizeBytes,
      backingName,
      l1Offset: l1Start * CLUSTER_BYTES,
      l1Entries: l1.length,
      refcountTableOffset: refcounts.tableStart * CLUSTER_BYTES,
      refcountTableClusters: refcounts.tableClusters,
    })
    const cluster = Buffer.alloc(PAGE_BYTES)
    header.copy(cluster)
    this.#file.write([cluster], 0)
    step('header-written')
    this.#file.sync()
  }

  #writeRefcounts(scratch: Buffer): { tableStart: number; tableClusters: number } {
    // The free clusters inside the data are left as holes: tables go behind the end, into fresh room that is zero.
    const blocks: number[] = []
    const tableStart = this.#use.allocateRun(1)
    while (blocks.length * REFCOUNTS_PER_BLOCK < this.#use.end) blocks.push(this.#use.allocateRun(1))
    assert(blocks.length <= ENTRIES_PER_CLUSTER, 'a layer of more than 16 TiB')
    blocks.forEach((cluster, i) => {
      this.#writeFresh(this.#use.refcountBlock(i, scratch), cluster)
    })
    this.#writeFresh(
      encodeReferences(
        blocks.map((cluster) => cluster * CLUSTER_BYTES),
        'plain',
        scratch,
      ),
      tableStart,
    )
    return { tableStart, tableClusters: 1 }
  }

  #writeFresh(bytes: Buffer, cluster: number): void {
    this.#file.write([withoutTrailingZeros(bytes)], cluster * CLUSTER_BYTES)
  }

  #dropFrom(blockCount: number): void {
    for (const [blockIndex, state] of this.#map.entries()) {
      if (blockIndex < blockCount) continue
      if (state > 0) this.#use.remove(state)
      this.#map.set(blockIndex, ABSENT)
    }
  }
}

/** A base needs no zero flags: what it does not have is zero anyway. */
function withoutZeros(table: Int32Array): Int32Array {
  return table.map((state) => (state === ZERO ? ABSENT : state))
}

function isWorthWriting(table: Int32Array, backingName: string | null): boolean {
  for (let i = 0; i < L2_ENTRIES; i++) {
    const state = table[i] ?? ABSENT
    if (state > 0 || (state === ZERO && backingName !== null)) return true
  }
  return false
}
