/**
 * What one group of 256 blocks of one layer is made of, and its leaves. Pure.
 *
 *   absent   the layer says nothing of the block: ask the one below
 *   zero     it reads as zeros, whatever is below
 *   data     a cluster of the file holds it, and its leaf is known
 *
 * These are the three states of a qcow2 table entry, so what is stored here must equal the mapping of the file exactly.
 */
import { GROUP_CHILDREN, HASH_BYTES, ZERO_HASH } from '#shared/blocks/hash-tree.ts'
import type { BlockState } from '#shared/formats/qcow2/cluster-map.ts'

export const BITMAP_BYTES = GROUP_CHILDREN / 8

export type LeafState = 'absent' | 'zero' | 'data'

/** As it is stored: two bitmaps, and the leaves of the data blocks one behind the other. */
export interface PackedLeafGroup {
  readonly zeros: Buffer
  readonly data: Buffer
  readonly leaves: Buffer
}

export class LeafGroup {
  readonly #states: (LeafState | undefined)[] = []
  readonly #leaves = new Map<number, Buffer>()

  static unpack({ zeros, data, leaves }: PackedLeafGroup): LeafGroup {
    const group = new LeafGroup()
    let at = 0
    for (let i = 0; i < GROUP_CHILDREN; i++) {
      if (isSet(zeros, i)) group.setZero(i)
      if (!isSet(data, i)) continue
      group.setData(i, leaves.subarray(at, at + HASH_BYTES))
      at += HASH_BYTES
    }
    return group
  }

  /** `i`: 0 to 255. */
  state(i: number): LeafState {
    return this.#states[i] ?? 'absent'
  }

  /** Of a data block its leaf, of every other one that of zeros. */
  leaf(i: number): Buffer {
    return this.#leaves.get(i) ?? ZERO_HASH
  }

  setZero(i: number): void {
    this.#states[i] = 'zero'
    this.#leaves.delete(i)
  }

  setData(i: number, leaf: Buffer): void {
    this.#states[i] = 'data'
    this.#leaves.set(i, leaf)
  }

  setAbsent(i: number): void {
    this.#states[i] = 'absent'
    this.#leaves.delete(i)
  }

  /** Blocks that are not absent. */
  get blockCount(): number {
    return this.#states.reduce((count, state) => count + (state && state !== 'absent' ? 1 : 0), 0)
  }

  get dataCount(): number {
    return this.#leaves.size
  }

  pack(): PackedLeafGroup {
    const zeros = Buffer.alloc(BITMAP_BYTES)
    const data = Buffer.alloc(BITMAP_BYTES)
    const leaves = Buffer.alloc(this.#leaves.size * HASH_BYTES)
    let at = 0
    for (let i = 0; i < GROUP_CHILDREN; i++) {
      if (this.#states[i] === 'zero') set(zeros, i)
      if (this.#states[i] !== 'data') continue
      set(data, i)
      at += this.leaf(i).copy(leaves, at)
    }
    return { zeros, data, leaves }
  }
}

function isSet(bitmap: Buffer, i: number): boolean {
  return ((bitmap[i >> 3] ?? 0) & (1 << (i & 7))) !== 0
}

function set(bitmap: Buffer, i: number): void {
  bitmap[i >> 3] = (bitmap[i >> 3] ?? 0) | (1 << (i & 7))
}

/** Whether bitmaps and leaves belong together at all. */
export function isPackedLeafGroup({ zeros, data, leaves }: PackedLeafGroup): boolean {
  if (zeros.length !== BITMAP_BYTES || data.length !== BITMAP_BYTES) return false
  let count = 0
  for (let i = 0; i < GROUP_CHILDREN; i++) {
    if (isSet(data, i) && isSet(zeros, i)) return false
    if (isSet(data, i)) count++
  }
  return leaves.length === count * HASH_BYTES
}

/** Groups from the table entries of a layer, ascending; zeros of a base are no entries, since it has nothing below. */
export function* leafGroupsOf(of: {
  readonly entries: Iterable<readonly [blockIndex: number, state: BlockState]>
  readonly hasBacking: boolean
  readonly leaf: (blockIndex: number) => Buffer
}): Generator<readonly [groupIndex: number, group: LeafGroup], void> {
  let open: { readonly groupIndex: number; readonly group: LeafGroup } | undefined
  for (const [blockIndex, state] of of.entries) {
    if (state <= 0 && !of.hasBacking) continue
    const groupIndex = Math.floor(blockIndex / GROUP_CHILDREN)
    if (open?.groupIndex !== groupIndex) {
      if (open) yield [open.groupIndex, open.group]
      open = { groupIndex, group: new LeafGroup() }
    }
    const i = blockIndex % GROUP_CHILDREN
    // The tree it comes from reuses its memory.
    if (state > 0) open.group.setData(i, Buffer.from(of.leaf(blockIndex)))
    else open.group.setZero(i)
  }
  if (open) yield [open.groupIndex, open.group]
}

/** What a merge makes of two layers (shared/formats/qcow2/merge-plan.ts): the upper one's word counts. Changes `lower`. */
export function uniteGroups(
  lower: LeafGroup,
  upper: LeafGroup,
  { lowerHasBacking }: { readonly lowerHasBacking: boolean },
): LeafGroup {
  for (let i = 0; i < GROUP_CHILDREN; i++) {
    const state = upper.state(i)
    if (state === 'data') lower.setData(i, upper.leaf(i))
    else if (state === 'zero' && lowerHasBacking) lower.setZero(i)
    else if (state === 'zero') lower.setAbsent(i)
  }
  return lower
}
