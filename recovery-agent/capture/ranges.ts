/** Ranges of blocks: ascending, disjoint, not touching. Pure. */
import { BLOCK_BYTES, blockCountOf } from '#shared/blocks/block.ts'
import type { Extent, SnapshotDisk } from '../hypervisor/port.ts'

/** Blocks [first, end). */
export interface BlockRange {
  readonly first: number
  readonly end: number
}

/** The blocks that extents touch, within the disk. Extents may overlap and come in any order. */
export function rangesOf(extents: readonly Extent[], sizeBytes: number): BlockRange[] {
  const blockCount = blockCountOf(sizeBytes)
  const ranges = extents
    .filter((extent) => extent.lengthBytes > 0 && extent.offsetBytes < sizeBytes)
    .map((extent) => ({
      first: Math.floor(extent.offsetBytes / BLOCK_BYTES),
      end: Math.min(blockCount, Math.ceil((extent.offsetBytes + extent.lengthBytes) / BLOCK_BYTES)),
    }))
  return normalize(ranges)
}

export function normalize(ranges: readonly BlockRange[]): BlockRange[] {
  const sorted = ranges.filter((range) => range.first < range.end).sort((a, b) => a.first - b.first)
  const merged: BlockRange[] = []
  for (const range of sorted) {
    const last = merged.at(-1)
    if (last && range.first <= last.end)
      merged[merged.length - 1] = { first: last.first, end: Math.max(last.end, range.end) }
    else merged.push(range)
  }
  return merged
}

export interface Piece extends BlockRange {
  /** False: nothing is allocated there, so it reads as zeros and need not be read. */
  readonly allocated: boolean
}

/** Cuts `wanted` into pieces that are allocated and pieces that are not, ascending. */
export function cutByAllocation(wanted: readonly BlockRange[], allocated: readonly BlockRange[]): Piece[] {
  const pieces: Piece[] = []
  let next = firstEndingAfter(allocated, wanted[0]?.first ?? 0)
  for (const range of wanted) {
    let at = range.first
    while (at < range.end) {
      let data = allocated[next]
      while (data && data.end <= at) data = allocated[++next]
      if (!data || data.first >= range.end) {
        pieces.push({ first: at, end: range.end, allocated: false })
        break
      }
      if (data.first > at) pieces.push({ first: at, end: data.first, allocated: false })
      const first = Math.max(at, data.first)
      at = Math.min(range.end, data.end)
      pieces.push({ first, end: at, allocated: true })
    }
  }
  return pieces
}

function firstEndingAfter(ranges: readonly BlockRange[], block: number): number {
  let low = 0
  let high = ranges.length
  while (low < high) {
    const middle = (low + high) >>> 1
    const range = ranges[middle]
    if (range && range.end <= block) low = middle + 1
    else high = middle
  }
  return low
}

/** The first range of blocks with data that ends above a block; null: none. */
export type NextData = (block: number) => BlockRange | null

/** What a disk says of where it holds data, without making a list of it where the disk can be asked step by step. */
export function dataOf(disk: Pick<SnapshotDisk, 'allocated' | 'nextData' | 'sizeBytes'>): NextData {
  const { nextData, sizeBytes } = disk
  if (!nextData) {
    const allocated = rangesOf(disk.allocated, sizeBytes)
    return (block) => allocated[firstEndingAfter(allocated, block)] ?? null
  }
  return (block) => {
    const extent = nextData(block * BLOCK_BYTES)
    return (extent && rangesOf([extent], sizeBytes)[0]) ?? null
  }
}

/** Like `cutByAllocation`, asking only where it cuts. */
export function* cutByData(wanted: readonly BlockRange[], nextData: NextData): Generator<Piece, void> {
  for (const { first, end } of wanted) {
    for (let at = first; at < end; ) {
      const data = nextData(at)
      const from = data ? Math.max(at, data.first) : end
      if (from > at) yield { first: at, end: Math.min(from, end), allocated: false }
      if (!data || from >= end) break
      at = Math.min(end, data.end)
      if (at <= from) throw new RangeError('data that ends where it begins')
      yield { first: from, end: at, allocated: true }
    }
  }
}

/** What of `ranges` is in none of `without`; both ascending and disjoint. */
export function subtract(ranges: readonly BlockRange[], without: readonly BlockRange[]): BlockRange[] {
  return [...cutByAllocation(ranges, without)].flatMap(({ first, end, allocated }) =>
    allocated ? [] : [{ first, end }],
  )
}

export function contains(ranges: readonly BlockRange[], block: number): boolean {
  const range = ranges[firstEndingAfter(ranges, block)]
  return range !== undefined && range.first <= block
}

export function blocksIn(ranges: readonly BlockRange[]): number {
  return ranges.reduce((sum, { first, end }) => sum + end - first, 0)
}
