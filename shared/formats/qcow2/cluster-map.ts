/**
 * What a layer says of each block: nothing (ask the backing file), zeros, or the cluster of the file that holds it.
 * One Int32Array for each L2 table, so that a terabyte of blocks costs 64 MiB; cluster numbers reach 128 TiB.
 */

/** Blocks described by one L2 table: 512 MiB of disk. */
export const L2_ENTRIES = 8192
export const ABSENT = 0
/** Reads as zeros, whatever the backing file holds. */
export const ZERO = -1
/** The specification's cluster number, above 0 because the header has cluster 0. */
export type BlockState = number

export class ClusterMap {
  readonly #tables = new Map<number, Int32Array>()

  get(blockIndex: number): BlockState {
    return this.#tables.get(Math.floor(blockIndex / L2_ENTRIES))?.[blockIndex % L2_ENTRIES] ?? ABSENT
  }

  set(blockIndex: number, state: BlockState): void {
    const tableIndex = Math.floor(blockIndex / L2_ENTRIES)
    let table = this.#tables.get(tableIndex)
    if (!table) {
      if (state === ABSENT) return
      table = new Int32Array(L2_ENTRIES)
      this.#tables.set(tableIndex, table)
    }
    table[blockIndex % L2_ENTRIES] = state
  }

  table(tableIndex: number): Int32Array | undefined {
    return this.#tables.get(tableIndex)
  }

  setTable(tableIndex: number, table: Int32Array): void {
    this.#tables.set(tableIndex, table)
  }

  /** Indexes of the tables there are, ascending. */
  tableIndexes(): number[] {
    return [...this.#tables.keys()].sort((a, b) => a - b)
  }

  /** Blocks that are not absent, ascending. */
  *entries(): Generator<readonly [blockIndex: number, state: BlockState]> {
    for (const tableIndex of this.tableIndexes()) {
      const table = this.#tables.get(tableIndex)
      if (!table) continue
      for (let i = 0; i < L2_ENTRIES; i++) {
        const state = table[i] ?? ABSENT
        if (state !== ABSENT) yield [tableIndex * L2_ENTRIES + i, state]
      }
    }
  }

  copy(): ClusterMap {
    const copy = new ClusterMap()
    for (const [tableIndex, table] of this.#tables) copy.#tables.set(tableIndex, table.slice())
    return copy
  }
}
