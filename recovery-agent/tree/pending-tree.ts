/**
 * A tree with changes that are not stored yet. Reads see the changes; `flush` stores them.
 *
 * One group is held open, whole; the others that changed are packed to the leaves that differ from the stored group.
 * So a change costs some 250 bytes of memory for its group and 33 for each leaf, 8 KiB at the most, and next to nothing
 * where a group became zero; `pendingBytes` counts it, and whoever fills the tree sees to its bound. With a scratch, leaves
 * beyond a bound lie there, and only the node over them, which tells whether what is read back is right, stays in memory.
 */
import { blockCountOf } from '#shared/blocks/block.ts'
import {
  GROUP_CHILDREN,
  groupCountOf,
  HASH_BYTES,
  nodeOf,
  ZERO_GROUP,
  ZERO_HASH,
} from '#shared/blocks/hash-tree.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { LeafStore } from './leaf-store.ts'
import { MAX_GROUPS, rootAfter, type UpperChange } from './upper-pages.ts'

/** What a packed group costs beside its leaves: a Map entry, an object and two small buffers (measured). */
const ENTRY_BYTES = 250

/** Room for whole groups of leaves, wanted no longer than the tree is in use. */
export interface LeafScratch {
  put(groupIndex: number, leaves: Buffer): void
  get(groupIndex: number): Buffer
}

export interface Spill {
  readonly scratch: LeafScratch
  /** Of leaves in memory. */
  readonly maxBytes: number
}

interface PackedGroup {
  readonly node: Buffer
  /** Where `leaves` belong in the group; null: they are the whole group. */
  readonly positions: Uint8Array | null
  /** null: they are in the scratch. */
  readonly leaves: Buffer | null
}

interface OpenGroup {
  readonly index: number
  /** The group as it is stored. */
  readonly base: Buffer
  /** Shared with the store until the group is written to. */
  leaves: Buffer
  isDirty: boolean
}

const NO_GROUP: OpenGroup = { index: -1, base: ZERO_GROUP, leaves: ZERO_GROUP, isDirty: false }

export class PendingTree {
  readonly #store: LeafStore
  readonly #tree: string
  readonly #spill: Spill | undefined
  readonly #packed = new Map<number, PackedGroup>()
  #leavesBytes = 0
  #open: OpenGroup = NO_GROUP
  /** Stored groups from here on were cut off: the disk was shorter than that at some time since the last flush. */
  #cutGroups = Number.POSITIVE_INFINITY

  constructor(store: LeafStore, tree: string, spill?: Spill) {
    this.#store = store
    this.#tree = tree
    this.#spill = spill
  }

  /** Memory that changes take until the flush. */
  get pendingBytes(): number {
    return this.#packed.size * ENTRY_BYTES + this.#leavesBytes
  }

  /** Shares memory with the tree: copy it before keeping it. */
  leaf(blockIndex: number): Buffer {
    const offset = (blockIndex % GROUP_CHILDREN) * HASH_BYTES
    return this.group(Math.floor(blockIndex / GROUP_CHILDREN)).subarray(offset, offset + HASH_BYTES)
  }

  /** Shares memory with the tree, like `leaf`. */
  group(groupIndex: number): Buffer {
    return this.#opened(groupIndex).leaves
  }

  setLeaf(blockIndex: number, leaf: Buffer): void {
    const open = this.#opened(Math.floor(blockIndex / GROUP_CHILDREN))
    if (open.index >= MAX_GROUPS)
      throw new RangeError(`block ${blockIndex} is beyond what a hash tree can hold`)
    if (!open.isDirty) {
      open.leaves = Buffer.from(open.leaves)
      open.isDirty = true
    }
    leaf.copy(open.leaves, (blockIndex % GROUP_CHILDREN) * HASH_BYTES)
  }

  /**
   * The disk is this large from now on: leaves past its end are forgotten, so that growing again finds zeros there.
   * 0 bytes: what is stored is not looked at any more.
   */
  resize(sizeBytes: number): void {
    const blockCount = blockCountOf(sizeBytes)
    const inLastGroup = blockCount % GROUP_CHILDREN
    if (inLastGroup > 0) {
      const open = this.#opened(Math.floor(blockCount / GROUP_CHILDREN))
      const beyond = inLastGroup * HASH_BYTES
      if (!open.leaves.subarray(beyond).equals(ZERO_GROUP.subarray(beyond))) {
        open.leaves = Buffer.from(open.leaves)
        open.leaves.fill(0, beyond)
        open.isDirty = true
      }
    }
    this.#pack()
    const groupCount = groupCountOf(sizeBytes)
    this.#cutGroups = Math.min(this.#cutGroups, groupCount)
    for (const groupIndex of [...this.#packed.keys()]) if (groupIndex >= groupCount) this.#unpack(groupIndex)
    if (this.#open.index >= groupCount) this.#open = NO_GROUP
  }

  /** Level-1 nodes of `count` groups from `first` on, changes included. */
  nodes(first: number, count: number): Buffer {
    this.#pack()
    const hashes = Buffer.alloc(count * HASH_BYTES)
    const stored = Math.min(count, Math.max(0, this.#cutGroups - first))
    if (stored > 0) this.#store.groupHashes(this.#tree, stored, first).copy(hashes)
    if (this.#packed.size < count) {
      for (const [groupIndex, { node }] of this.#packed)
        if (groupIndex >= first && groupIndex < first + count)
          node.copy(hashes, (groupIndex - first) * HASH_BYTES)
      return hashes
    }
    for (let i = 0; i < count; i++) this.#packed.get(first + i)?.node.copy(hashes, i * HASH_BYTES)
    return hashes
  }

  /** Level-1 nodes of the whole disk, changes included: 32 bytes for each 16 MiB of it. */
  groupHashes(sizeBytes: number): Buffer {
    return this.nodes(0, groupCountOf(sizeBytes))
  }

  /** Groups in [first, end) that the store has as not all zero, ascending. Changes that are not flushed do not count. */
  storedGroups(first: number, end: number): Generator<number, void> {
    return this.#store.nonZeroGroups(this.#tree, first, Math.min(end, this.#cutGroups))
  }

  /** Costs the changed groups and their paths to the top, whatever the disk's size. */
  root(sizeBytes: number): Buffer {
    this.#pack()
    const nodes = new Map([...this.#packed].map(([groupIndex, { node }]) => [groupIndex, node]))
    const read: UpperChange['read'] = (level, pageIndex) => this.#store.page(this.#tree, level, pageIndex)
    return rootAfter({ read, cutGroups: this.#cutGroups, nodes }, sizeBytes)
  }

  /** Stores the changes, inside the caller's transaction. */
  flush(): void {
    this.#pack()
    const cutGroups = Number.isFinite(this.#cutGroups) ? this.#cutGroups : null
    if (this.#packed.size > 0 || cutGroups !== null)
      this.#store.write(this.#tree, { cutGroups, groups: this.#changedGroups() })
    this.#packed.clear()
    this.#leavesBytes = 0
    this.#cutGroups = Number.POSITIVE_INFINITY
    this.#open = NO_GROUP
  }

  *#changedGroups(): Generator<readonly [number, Buffer, Buffer], void> {
    for (const [groupIndex, packed] of this.#packed)
      yield [groupIndex, this.#whole(groupIndex, packed, () => this.#stored(groupIndex)), packed.node]
  }

  #whole(groupIndex: number, { node, positions, leaves }: PackedGroup, stored: () => Buffer): Buffer {
    if (leaves) return wholeGroup(positions, leaves, stored)
    const kept = this.#spill?.scratch.get(groupIndex)
    if (kept && nodeOf(kept, 1).equals(node)) return kept
    const what = `leaves of group ${groupIndex} that were set aside are not those that were written`
    throw new HotsiteError('tree-damaged', `hash tree ${this.#tree}: ${what}`, {
      details: { tree: this.#tree, groupIndex },
    })
  }

  #opened(groupIndex: number): OpenGroup {
    if (this.#open.index === groupIndex) return this.#open
    this.#pack()
    const packed = this.#packed.get(groupIndex)
    const base = this.#stored(groupIndex)
    const leaves = packed ? this.#whole(groupIndex, packed, () => base) : base
    this.#open = { index: groupIndex, base, leaves, isDirty: false }
    return this.#open
  }

  #stored(groupIndex: number): Buffer {
    return groupIndex < this.#cutGroups ? this.#store.group(this.#tree, groupIndex) : ZERO_GROUP
  }

  /** Puts the open group with the others, if it changed. It stays open. */
  #pack(): void {
    const { index, base, leaves, isDirty } = this.#open
    if (!isDirty) return
    this.#unpack(index)
    const packed = packedGroup(leaves, base)
    this.#packed.set(index, packed)
    this.#leavesBytes += bytesOf(packed)
    // What was packed may share the memory.
    this.#open = { index, base, leaves, isDirty: false }
    if (this.#spill && this.#leavesBytes > this.#spill.maxBytes) this.#setAside(this.#spill.scratch)
  }

  #setAside(scratch: LeafScratch): void {
    for (const [groupIndex, packed] of this.#packed) {
      if (bytesOf(packed) === 0) continue
      scratch.put(
        groupIndex,
        this.#whole(groupIndex, packed, () => this.#stored(groupIndex)),
      )
      this.#packed.set(groupIndex, { node: packed.node, positions: null, leaves: null })
    }
    this.#leavesBytes = 0
  }

  #unpack(groupIndex: number): void {
    const packed = this.#packed.get(groupIndex)
    if (!packed) return
    this.#packed.delete(groupIndex)
    this.#leavesBytes -= bytesOf(packed)
  }
}

/** Of its leaves in memory. */
function bytesOf({ leaves }: PackedGroup): number {
  return leaves === null || leaves === ZERO_GROUP ? 0 : leaves.length
}

function packedGroup(leaves: Buffer, stored: Buffer): PackedGroup {
  const node = nodeOf(leaves, 1)
  if (node === ZERO_HASH) return { node, positions: null, leaves: ZERO_GROUP }
  const positions: number[] = []
  for (let i = 0; i < GROUP_CHILDREN; i++) {
    const offset = i * HASH_BYTES
    if (leaves.compare(stored, offset, offset + HASH_BYTES, offset, offset + HASH_BYTES) !== 0)
      positions.push(i)
  }
  if (positions.length > GROUP_CHILDREN / 2) return { node, positions: null, leaves }
  const changed = Buffer.allocUnsafeSlow(positions.length * HASH_BYTES)
  positions.forEach((position, i) => {
    leaves.copy(changed, i * HASH_BYTES, position * HASH_BYTES, position * HASH_BYTES + HASH_BYTES)
  })
  return { node, positions: Uint8Array.from(positions), leaves: changed }
}

function wholeGroup(positions: Uint8Array | null, leaves: Buffer, stored: () => Buffer): Buffer {
  if (!positions) return leaves
  const whole = Buffer.from(stored())
  positions.forEach((position, i) => {
    leaves.copy(whole, position * HASH_BYTES, i * HASH_BYTES, (i + 1) * HASH_BYTES)
  })
  return whole
}
