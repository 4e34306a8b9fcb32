/**
 * Where a hash tree rests: one row of 8 KiB for each group of 256 leaves that is not all zero, with the group's node
 * beside it, so that a root costs the group rows that changed plus 32 bytes for each group. The rows live in the
 * database of what they describe (buffer.db at the source, replica.db at the target) and change in the same
 * transaction as the cursor or the point, which is what binds a tree to its (epoch, seq) through any crash.
 */
import { blockCountOf } from '#shared/blocks/block.ts'
import {
  GROUP_CHILDREN,
  groupCountOf,
  HASH_BYTES,
  nodeOf,
  rootOf,
  ZERO_GROUP,
  ZERO_HASH,
} from '#shared/blocks/hash-tree.ts'
import type { Sqlite } from '#shared/sqlite.ts'

/** Part of the migrations of every database that keeps trees. `tree` is a key of the owner's choosing, one per disk. */
export const leafStoreSchema = `
  CREATE TABLE leaf_groups (
    tree TEXT NOT NULL,
    group_index INTEGER NOT NULL,
    node BLOB NOT NULL,
    leaves BLOB NOT NULL,
    PRIMARY KEY (tree, group_index)
  ) STRICT, WITHOUT ROWID;
`

export interface LeafStore {
  /** The 256 leaves of a group; zeros when there is no row. */
  group(tree: string, groupIndex: number): Buffer
  /** Level-1 nodes of `count` groups from `first` on, 32 bytes each. */
  groupHashes(tree: string, count: number, first?: number): Buffer
  /** Inside the caller's transaction. */
  putGroup(tree: string, groupIndex: number, leaves: Buffer): void
  /** Drops groups at and above `fromGroup` (0: the whole tree). Inside the caller's transaction. */
  truncate(tree: string, fromGroup: number): void
}

export function openLeafStore(db: Sqlite): LeafStore {
  const selectOne = db.prepare<[string, number], { leaves: Buffer }>(
    'SELECT leaves FROM leaf_groups WHERE tree = ? AND group_index = ?',
  )
  const selectNodes = db.prepare<[string, number, number], { group_index: number; node: Buffer }>(
    'SELECT group_index, node FROM leaf_groups WHERE tree = ? AND group_index >= ? AND group_index < ?',
  )
  const upsert = db.prepare<[string, number, Buffer, Buffer]>(
    'INSERT INTO leaf_groups (tree, group_index, node, leaves) VALUES (?, ?, ?, ?) ' +
      'ON CONFLICT (tree, group_index) DO UPDATE SET node = excluded.node, leaves = excluded.leaves',
  )
  const removeOne = db.prepare<[string, number]>('DELETE FROM leaf_groups WHERE tree = ? AND group_index = ?')
  const removeFrom = db.prepare<[string, number]>(
    'DELETE FROM leaf_groups WHERE tree = ? AND group_index >= ?',
  )
  return {
    group: (tree, groupIndex) => selectOne.get(tree, groupIndex)?.leaves ?? Buffer.from(ZERO_GROUP),
    groupHashes(tree, count, first = 0) {
      const hashes = Buffer.alloc(count * HASH_BYTES)
      for (const row of selectNodes.all(tree, first, first + count)) {
        row.node.copy(hashes, (row.group_index - first) * HASH_BYTES)
      }
      return hashes
    },
    putGroup(tree, groupIndex, leaves) {
      const node = nodeOf(leaves, 1)
      if (node.equals(ZERO_HASH)) removeOne.run(tree, groupIndex)
      else upsert.run(tree, groupIndex, node, leaves)
    },
    truncate: (tree, fromGroup) => removeFrom.run(tree, fromGroup),
  }
}

/** A tree with changes that are not stored yet. Reads see the changes; `flush` stores them. */
export class PendingTree {
  readonly #store: LeafStore
  readonly #tree: string
  readonly #changed = new Map<number, Buffer>()
  #lastIndex = -1
  #lastGroup: Buffer = ZERO_GROUP
  /** Stored groups from here on were cut off: the disk was shorter than that at some time since the last flush. */
  #storedGroups = Number.POSITIVE_INFINITY

  constructor(store: LeafStore, tree: string) {
    this.#store = store
    this.#tree = tree
  }

  /** Shares memory with the tree: copy it before keeping it. */
  leaf(blockIndex: number): Buffer {
    const offset = (blockIndex % GROUP_CHILDREN) * HASH_BYTES
    return this.group(Math.floor(blockIndex / GROUP_CHILDREN)).subarray(offset, offset + HASH_BYTES)
  }

  group(groupIndex: number): Buffer {
    const changed = this.#changed.get(groupIndex)
    if (changed) return changed
    if (groupIndex >= this.#storedGroups) return ZERO_GROUP
    if (this.#lastIndex !== groupIndex) {
      this.#lastGroup = this.#store.group(this.#tree, groupIndex)
      this.#lastIndex = groupIndex
    }
    return this.#lastGroup
  }

  setLeaf(blockIndex: number, leaf: Buffer): void {
    const groupIndex = Math.floor(blockIndex / GROUP_CHILDREN)
    let group = this.#changed.get(groupIndex)
    if (!group) {
      group = Buffer.from(this.group(groupIndex))
      this.#changed.set(groupIndex, group)
    }
    leaf.copy(group, (blockIndex % GROUP_CHILDREN) * HASH_BYTES)
  }

  /** The disk is this large from now on: leaves past its end are forgotten, so that growing again finds zeros there. */
  resize(sizeBytes: number): void {
    const blockCount = blockCountOf(sizeBytes)
    const inLastGroup = blockCount % GROUP_CHILDREN
    const lastGroup = Math.floor(blockCount / GROUP_CHILDREN)
    if (inLastGroup > 0) {
      const beyond = inLastGroup * HASH_BYTES
      const group = this.group(lastGroup)
      if (!group.subarray(beyond).equals(ZERO_GROUP.subarray(beyond))) {
        const trimmed = Buffer.from(group)
        trimmed.fill(0, beyond)
        this.#changed.set(lastGroup, trimmed)
      }
    }
    const groupCount = groupCountOf(sizeBytes)
    this.#storedGroups = Math.min(this.#storedGroups, groupCount)
    for (const groupIndex of [...this.#changed.keys()]) {
      if (groupIndex >= groupCount) this.#changed.delete(groupIndex)
    }
  }

  /** Level-1 nodes of `count` groups from `first` on, changes included. */
  nodes(first: number, count: number): Buffer {
    const hashes = Buffer.alloc(count * HASH_BYTES)
    const stored = Math.min(count, Math.max(0, this.#storedGroups - first))
    if (stored > 0) this.#store.groupHashes(this.#tree, stored, first).copy(hashes)
    if (this.#changed.size < count) {
      for (const [groupIndex, leaves] of this.#changed) {
        if (groupIndex < first || groupIndex >= first + count) continue
        nodeOf(leaves, 1).copy(hashes, (groupIndex - first) * HASH_BYTES)
      }
      return hashes
    }
    for (let i = 0; i < count; i++) {
      const leaves = this.#changed.get(first + i)
      if (leaves) nodeOf(leaves, 1).copy(hashes, i * HASH_BYTES)
    }
    return hashes
  }

  /** Level-1 nodes of the whole disk, changes included. */
  groupHashes(sizeBytes: number): Buffer {
    return this.nodes(0, groupCountOf(sizeBytes))
  }

  root(sizeBytes: number): Buffer {
    return rootOf(this.groupHashes(sizeBytes), sizeBytes)
  }

  /** Stores the changes, inside the caller's transaction. */
  flush(): void {
    if (Number.isFinite(this.#storedGroups)) this.#store.truncate(this.#tree, this.#storedGroups)
    for (const [groupIndex, leaves] of this.#changed) this.#store.putGroup(this.#tree, groupIndex, leaves)
    this.#changed.clear()
    this.#storedGroups = Number.POSITIVE_INFINITY
    this.#lastIndex = -1
  }
}
