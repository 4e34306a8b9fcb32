/**
 * What merging layers does to one L2 table of the lower file, as data (DESIGN §5, "Pruning point k").
 *
 * The lower file is no point any more, and its only readers go through the upper ones, which answer every block they
 * have themselves. So the lower file's cluster of such a block may be overwritten at any moment without anyone seeing
 * it, and no other cluster is touched. That holds for a hypervisor that opened the chain before the merge as well.
 */
import { ABSENT, L2_ENTRIES, ZERO } from './cluster-map.ts'

export interface CopyRun {
  /** Which of the upper layers, by its place in the list. */
  readonly upperIndex: number
  /** Clusters in the upper file and in the lower one. */
  readonly from: number
  readonly to: number
  readonly count: number
  /** Of each cluster the block, as the table counts it: from 0. */
  readonly blocks: readonly number[]
}

export interface TablePlan {
  readonly copies: readonly CopyRun[]
  readonly table: Int32Array
  /** The table itself must be written. */
  readonly isChanged: boolean
  /** Data clusters that nobody references once it is. */
  readonly freed: readonly number[]
  /** Entries that are not absent. */
  readonly entryCount: number
}

/** One piece of copying: 1 MiB. */
export const MAX_RUN_CLUSTERS = 16

export function planTable(of: {
  readonly lower: Int32Array | undefined
  /** Of each upper layer, newest first; undefined: it says nothing here. */
  readonly uppers: readonly (Int32Array | undefined)[]
  readonly lowerHasBacking: boolean
  /** Blocks of the table that the disk still has. */
  readonly blockCount: number
  readonly allocate: () => number
}): TablePlan {
  const table = of.lower?.slice() ?? new Int32Array(L2_ENTRIES)
  const runs: CopyRun[] = []
  const freed: number[] = []
  let isChanged = false
  let entryCount = 0
  const set = (i: number, state: number) => {
    const old = table[i] ?? ABSENT
    if (old > 0 && state !== old) freed.push(old)
    if (old === state) return
    table[i] = state
    isChanged = true
  }
  // Without a backing file below, an absent block reads as zeros.
  const zero = of.lowerHasBacking ? ZERO : ABSENT
  for (let i = 0; i < L2_ENTRIES; i++) {
    if (i >= of.blockCount) set(i, ABSENT)
    else {
      const upperIndex = of.uppers.findIndex((upper) => upper !== undefined && upper[i] !== ABSENT)
      const state = of.uppers[upperIndex]?.[i] ?? ABSENT
      if (state === ZERO) set(i, zero)
      else if (state !== ABSENT) {
        const old = table[i] ?? ABSENT
        const to = old > 0 ? old : of.allocate()
        addToRuns(runs, { upperIndex, from: state, to, count: 1, blocks: [i] })
        set(i, to)
      }
    }
    if (table[i] !== ABSENT) entryCount++
  }
  return { copies: runs, table, isChanged, freed, entryCount }
}

function addToRuns(runs: CopyRun[], next: CopyRun): void {
  const last = runs.at(-1)
  const isNeighbour =
    last !== undefined &&
    last.upperIndex === next.upperIndex &&
    last.count < MAX_RUN_CLUSTERS &&
    last.from + last.count === next.from &&
    last.to + last.count === next.to
  if (isNeighbour)
    runs[runs.length - 1] = { ...last, count: last.count + 1, blocks: [...last.blocks, ...next.blocks] }
  else runs.push(next)
}
