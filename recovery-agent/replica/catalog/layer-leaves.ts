/**
 * The leaves of every block that rests in a layer file, older versions included: what the files are held against when
 * they are read again. They change in the transactions that make points and end merges.
 *
 * A layer has a set of groups. A merge folds the upper layer's set into the lower one's, which then belongs to the
 * upper layer: that costs what changed, not the size of the disk. Every row has a checksum over its key and content,
 * and the row of the layer counts its groups, so that a flipped bit, a row that is gone and rows that changed places
 * are found: `catalog-damaged`. A layer without a row is one whose leaves are not known (yet).
 */
import { crc32 } from 'node:zlib'
import { blockCountOf } from '#shared/blocks/block.ts'
import { GROUP_CHILDREN } from '#shared/blocks/hash-tree.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { DiskId, VmId } from '#shared/ids.ts'
import type { Sqlite } from '#shared/sqlite.ts'
import { isPackedLeafGroup, LeafGroup, type PackedLeafGroup, uniteGroups } from './leaf-groups.ts'

export interface LayerKey {
  readonly vmId: VmId
  readonly diskId: DiskId
  readonly seq: number
}

export interface LayerFacts {
  readonly leafSet: number
  readonly groupCount: number
  /** Data and zero blocks. */
  readonly blockCount: number
  readonly fileBytes: number
}

interface GroupRow extends PackedLeafGroup {
  readonly group_index: number
  readonly checksum: number
}

export class LayerLeaves {
  /** Grows with every change. */
  changes = 0
  /** Sets that were begun and may have no rows yet. */
  #lastGiven = 0
  readonly #statements: ReturnType<typeof prepare>

  constructor(db: Sqlite) {
    this.#statements = prepare(db)
  }

  /** undefined: not known. Throws `catalog-damaged`. */
  facts(key: LayerKey): LayerFacts | undefined {
    const row = this.#statements.layer.get(key.vmId, key.seq, key.diskId)
    if (!row) return undefined
    const facts = factsOf(row)
    if (row.checksum !== layerChecksum(key, facts)) throw damaged(key, 'its row has another checksum')
    return facts
  }

  /** Groups that are not all absent, ascending. Throws `catalog-damaged`. */
  groupIndexes(key: LayerKey): number[] {
    const facts = this.facts(key)
    if (!facts) return []
    const rows = this.#statements.indexes.all(facts.leafSet)
    if (rows.length !== facts.groupCount)
      throw damaged(key, `${rows.length} groups of leaves are stored, ${facts.groupCount} were`)
    return rows.map(({ group_index }) => group_index)
  }

  /** An empty one when the layer has nothing there. Throws `catalog-damaged`. */
  group(key: LayerKey, groupIndex: number): LeafGroup {
    const facts = this.facts(key)
    return facts ? this.#group(key, facts.leafSet, groupIndex) : new LeafGroup()
  }

  /** Those of [first, end) that are not all absent. Throws `catalog-damaged`. */
  groups(key: LayerKey, first: number, end: number): Map<number, LeafGroup> {
    const facts = this.facts(key)
    if (!facts) return new Map()
    const { leafSet } = facts
    const rows = this.#statements.groups.all(leafSet, first, end)
    return new Map(rows.map((row) => [row.group_index, unpacked(key, leafSet, row)]))
  }

  /** In the caller's transaction, like everything below. Replaces what was known of the layer. */
  put(
    key: LayerKey,
    groups: Iterable<readonly [groupIndex: number, group: LeafGroup]>,
    fileBytes: number,
  ): void {
    this.remove(key)
    const leafSet = this.begin()
    let groupCount = 0
    let blockCount = 0
    for (const [groupIndex, group] of groups) {
      if (group.blockCount === 0) continue
      this.#putGroup(leafSet, groupIndex, group)
      groupCount++
      blockCount += group.blockCount
    }
    this.#putLayer(key, { leafSet, groupCount, blockCount, fileBytes })
  }

  /** For a layer that is read in steps: groups first, in transactions of their own, which mean nothing until `finish`. */
  begin(): number {
    this.#lastGiven = Math.max(this.#lastGiven, this.#statements.lastSet.get()?.last ?? 0) + 1
    return this.#lastGiven
  }

  add(leafSet: number, groupIndex: number, group: LeafGroup): void {
    this.#putGroup(leafSet, groupIndex, group)
  }

  /** The layer is known from now on. */
  finish(key: LayerKey, facts: LayerFacts): void {
    this.remove(key)
    this.#putLayer(key, facts)
  }

  /** What was begun came to nothing. */
  drop(leafSet: number): void {
    this.#statements.removeSet.run(leafSet)
  }

  remove(key: LayerKey): void {
    const row = this.#statements.layer.get(key.vmId, key.seq, key.diskId)
    if (!row) return
    this.changes++
    this.#statements.removeLayer.run(key.vmId, key.seq, key.diskId)
    // The number in a damaged row may be that of another layer's set.
    if (row.checksum === layerChecksum(key, factsOf(row))) this.#statements.removeSet.run(row.leaf_set)
    else this.#statements.removeStray.run()
  }

  /** Every disk of one member of the chain. */
  removeMember(vmId: VmId, seq: number): void {
    for (const { disk_id } of this.#statements.disks.all(vmId, seq))
      this.remove({ vmId, seq, diskId: disk_id as DiskId })
  }

  /** The leaves of the file that a merge of `lower` and `upper` leaves under the name of `upper`. */
  unite(merge: {
    readonly lower: LayerKey
    readonly upper: LayerKey
    readonly lowerHasBacking: boolean
    /** Of the upper layer, which the merged file has. */
    readonly sizeBytes: number
    readonly fileBytes: number
  }): void {
    const { lower, upper, lowerHasBacking, sizeBytes, fileBytes } = merge
    const below = this.facts(lower)
    const above = this.facts(upper)
    if (!below || !above) {
      // Half of it is not known, so nothing is: the scrub reads the file and learns it.
      this.remove(lower)
      this.remove(upper)
      return
    }
    let { groupCount, blockCount } = below
    const count = (group: LeafGroup, sign: 1 | -1) => {
      if (group.blockCount > 0) groupCount += sign
      blockCount += sign * group.blockCount
    }
    const put = (groupIndex: number, before: LeafGroup, change: (group: LeafGroup) => LeafGroup) => {
      count(before, -1)
      const after = change(before)
      count(after, 1)
      if (after.blockCount > 0) this.#putGroup(below.leafSet, groupIndex, after)
      else this.#statements.removeGroup.run(below.leafSet, groupIndex)
    }
    for (const groupIndex of this.groupIndexes(upper)) {
      const change = this.group(upper, groupIndex)
      put(groupIndex, this.#group(lower, below.leafSet, groupIndex), (group) =>
        uniteGroups(group, change, { lowerHasBacking }),
      )
    }
    const blocks = blockCountOf(sizeBytes)
    for (const { group_index } of this.#statements.indexesFrom.all(
      below.leafSet,
      Math.floor(blocks / GROUP_CHILDREN),
    )) {
      put(group_index, this.#group(lower, below.leafSet, group_index), (group) => {
        for (let i = 0; i < GROUP_CHILDREN; i++)
          if (group_index * GROUP_CHILDREN + i >= blocks) group.setAbsent(i)
        return group
      })
    }
    this.remove(upper)
    this.#statements.removeLayer.run(lower.vmId, lower.seq, lower.diskId)
    this.#putLayer(upper, { leafSet: below.leafSet, groupCount, blockCount, fileBytes })
  }

  #group(key: LayerKey, leafSet: number, groupIndex: number): LeafGroup {
    const row = this.#statements.group.get(leafSet, groupIndex)
    return row ? unpacked(key, leafSet, row) : new LeafGroup()
  }

  #putGroup(leafSet: number, groupIndex: number, group: LeafGroup): void {
    const packed = group.pack()
    const { zeros, data, leaves } = packed
    const checksum = groupChecksum(leafSet, groupIndex, packed)
    this.#statements.putGroup.run(leafSet, groupIndex, zeros, data, leaves, checksum)
  }

  /** The file was written anew: the same blocks, in other places. */
  setFileBytes(key: LayerKey, fileBytes: number): void {
    const facts = this.facts(key)
    if (!facts) return
    this.#statements.removeLayer.run(key.vmId, key.seq, key.diskId)
    this.#putLayer(key, { ...facts, fileBytes })
  }

  #putLayer(key: LayerKey, facts: LayerFacts): void {
    this.changes++
    const { leafSet, groupCount, blockCount, fileBytes } = facts
    this.#statements.putLayer.run(
      key.vmId,
      key.seq,
      key.diskId,
      leafSet,
      groupCount,
      blockCount,
      fileBytes,
      layerChecksum(key, facts),
    )
  }
}

interface LayerRow {
  readonly leaf_set: number
  readonly group_count: number
  readonly block_count: number
  readonly file_bytes: number
  readonly checksum: number
}

function factsOf(row: LayerRow): LayerFacts {
  return {
    leafSet: row.leaf_set,
    groupCount: row.group_count,
    blockCount: row.block_count,
    fileBytes: row.file_bytes,
  }
}

function layerChecksum(key: LayerKey, facts: LayerFacts): number {
  const { leafSet, groupCount, blockCount, fileBytes } = facts
  return crc32(JSON.stringify([key.vmId, key.seq, key.diskId, leafSet, groupCount, blockCount, fileBytes]))
}

function unpacked(key: LayerKey, leafSet: number, row: GroupRow): LeafGroup {
  const { group_index, checksum } = row
  if (!isPackedLeafGroup(row) || checksum !== groupChecksum(leafSet, group_index, row))
    throw damaged(key, `the leaves of group ${group_index} have another checksum`)
  return LeafGroup.unpack(row)
}

function groupChecksum(leafSet: number, groupIndex: number, row: PackedLeafGroup): number {
  return crc32(row.leaves, crc32(row.data, crc32(row.zeros, crc32(`${leafSet}/${groupIndex}`))))
}

function damaged(key: LayerKey, what: string): HotsiteError {
  return new HotsiteError(
    'catalog-damaged',
    `the stored leaves of layer ${key.seq} of disk ${key.diskId} of ${key.vmId}: ${what}`,
    { details: { ...key } },
  )
}

function prepare(db: Sqlite) {
  const layer = 'vm_id = ? AND seq = ? AND disk_id = ?'
  return {
    layer: db.prepare<[string, number, string], LayerRow>(
      `SELECT leaf_set, group_count, block_count, file_bytes, checksum FROM layers WHERE ${layer}`,
    ),
    disks: db.prepare<[string, number], { disk_id: string }>(
      'SELECT disk_id FROM layers WHERE vm_id = ? AND seq = ?',
    ),
    lastSet: db.prepare<[], { last: number | null }>(
      'SELECT max((SELECT coalesce(max(leaf_set), 0) FROM layers), ' +
        '(SELECT coalesce(max(leaf_set), 0) FROM layer_groups)) AS last',
    ),
    putLayer: db.prepare<[string, number, string, number, number, number, number, number]>(
      'INSERT INTO layers (vm_id, seq, disk_id, leaf_set, group_count, block_count, file_bytes, checksum) ' +
        'VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
    ),
    removeLayer: db.prepare<[string, number, string]>(`DELETE FROM layers WHERE ${layer}`),
    indexes: db.prepare<[number], { group_index: number }>(
      'SELECT group_index FROM layer_groups WHERE leaf_set = ? ORDER BY group_index',
    ),
    indexesFrom: db.prepare<[number, number], { group_index: number }>(
      'SELECT group_index FROM layer_groups WHERE leaf_set = ? AND group_index >= ? ORDER BY group_index',
    ),
    group: db.prepare<[number, number], GroupRow>(
      'SELECT group_index, zeros, data, leaves, checksum FROM layer_groups WHERE leaf_set = ? AND group_index = ?',
    ),
    groups: db.prepare<[number, number, number], GroupRow>(
      'SELECT group_index, zeros, data, leaves, checksum FROM layer_groups ' +
        'WHERE leaf_set = ? AND group_index >= ? AND group_index < ?',
    ),
    putGroup: db.prepare<[number, number, Buffer, Buffer, Buffer, number]>(
      'INSERT OR REPLACE INTO layer_groups (leaf_set, group_index, zeros, data, leaves, checksum) VALUES (?, ?, ?, ?, ?, ?)',
    ),
    removeGroup: db.prepare<[number, number]>(
      'DELETE FROM layer_groups WHERE leaf_set = ? AND group_index = ?',
    ),
    // By what no layer names, and not by the number in a row that may be damaged itself.
    removeSet: db.prepare<[number]>('DELETE FROM layer_groups WHERE leaf_set = ?'),
    removeStray: db.prepare<[]>(
      'DELETE FROM layer_groups WHERE leaf_set NOT IN (SELECT leaf_set FROM layers)',
    ),
  }
}
