/**
 * What a layer says of each block: nothing (ask the backing file), zeros, or the cluster of the file that holds it.
 *
 * Kept in chunks of 256 blocks, 16 MiB of disk, and only where the layer says something. A chunk whose blocks lie in the
 * file in the order of the disk, as a first copy writes them, is three numbers; any other is an array of 1 KiB. So memory
 * goes with what was written: a scattered block costs 1 KiB, a terabyte in order 8 MiB, a terabyte out of order 64 MiB.
 * Cluster numbers reach 128 TiB.
 */

/** Blocks described by one L2 table: 512 MiB of disk. */
export const L2_ENTRIES = 8192
export const ABSENT = 0
/** Reads as zeros, whatever the backing file holds. */
export const ZERO = -1
/** The specification's cluster number, above 0 because the header has cluster 0. */
export type BlockState = number

const CHUNK_BLOCKS = 256
const CHUNKS_PER_TABLE = L2_ENTRIES / CHUNK_BLOCKS

/** Places [first, end) of the chunk are in clusters from `cluster` on; the others are absent. */
interface Run {
  readonly first: number
  end: number
  readonly cluster: number
}

type Chunk = Run | Int32Array

export class ClusterMap {
  readonly #chunks = new Map<number, Chunk>()

  get(blockIndex: number): BlockState {
    const chunk = this.#chunks.get(Math.floor(blockIndex / CHUNK_BLOCKS))
    return chunk ? stateIn(chunk, blockIndex % CHUNK_BLOCKS) : ABSENT
  }

  set(blockIndex: number, state: BlockState): void {
    const chunkIndex = Math.floor(blockIndex / CHUNK_BLOCKS)
    const place = blockIndex % CHUNK_BLOCKS
    const chunk = this.#chunks.get(chunkIndex)
    if (!chunk) {
      if (state !== ABSENT) this.#chunks.set(chunkIndex, firstOf(place, state))
      return
    }
    if (chunk instanceof Int32Array) {
      chunk[place] = state
      return
    }
    if (stateIn(chunk, place) === state) return
    if (place === chunk.end && state === chunk.cluster + place - chunk.first) {
      chunk.end += 1
      return
    }
    const states = statesOf(chunk)
    states[place] = state
    this.#chunks.set(chunkIndex, states)
  }

  /** The states of one L2 table, a copy; undefined: nothing was ever said of any of its blocks. */
  table(tableIndex: number): Int32Array | undefined {
    let table: Int32Array | undefined
    for (let i = 0; i < CHUNKS_PER_TABLE; i++) {
      const chunk = this.#chunks.get(tableIndex * CHUNKS_PER_TABLE + i)
      if (!chunk) continue
      table ??= new Int32Array(L2_ENTRIES)
      copyStates(chunk, table.subarray(i * CHUNK_BLOCKS, (i + 1) * CHUNK_BLOCKS))
    }
    return table
  }

  /** Takes the states over; the table stays the caller's. */
  setTable(tableIndex: number, table: Int32Array): void {
    for (const [i, state] of table.entries()) this.set(tableIndex * L2_ENTRIES + i, state)
  }

  /** Indexes of the tables there are, ascending. */
  tableIndexes(): number[] {
    const indexes = new Set<number>()
    for (const chunkIndex of this.#chunks.keys()) indexes.add(Math.floor(chunkIndex / CHUNKS_PER_TABLE))
    return [...indexes].sort((a, b) => a - b)
  }

  /** Blocks that are not absent, ascending. */
  *entries(): Generator<readonly [blockIndex: number, state: BlockState]> {
    for (const chunkIndex of [...this.#chunks.keys()].sort((a, b) => a - b)) {
      const chunk = this.#chunks.get(chunkIndex)
      for (let place = 0; chunk && place < CHUNK_BLOCKS; place++) {
        const state = stateIn(chunk, place)
        if (state !== ABSENT) yield [chunkIndex * CHUNK_BLOCKS + place, state]
      }
    }
  }

  copy(): ClusterMap {
    const copy = new ClusterMap()
    for (const [chunkIndex, chunk] of this.#chunks)
      copy.#chunks.set(chunkIndex, chunk instanceof Int32Array ? chunk.slice() : { ...chunk })
    return copy
  }
}

function firstOf(place: number, state: BlockState): Chunk {
  if (state !== ZERO) return { first: place, end: place + 1, cluster: state }
  const states = new Int32Array(CHUNK_BLOCKS)
  states[place] = state
  return states
}

function stateIn(chunk: Chunk, place: number): BlockState {
  if (chunk instanceof Int32Array) return chunk[place] ?? ABSENT
  return place >= chunk.first && place < chunk.end ? chunk.cluster + place - chunk.first : ABSENT
}

function statesOf(chunk: Run): Int32Array {
  const states = new Int32Array(CHUNK_BLOCKS)
  copyStates(chunk, states)
  return states
}

function copyStates(chunk: Chunk, into: Int32Array): void {
  if (chunk instanceof Int32Array) into.set(chunk)
  else for (let place = chunk.first; place < chunk.end; place++) into[place] = stateIn(chunk, place)
}
