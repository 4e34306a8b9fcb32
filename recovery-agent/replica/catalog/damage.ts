/** What was found to be not as it was written, and what that means for recovery points. */
import { blockCountOf } from '#shared/blocks/block.ts'
import { GROUP_CHILDREN } from '#shared/blocks/hash-tree.ts'
import type { DiskId, VmId } from '#shared/ids.ts'
import type { Sqlite } from '#shared/sqlite.ts'
import type { Chain } from './chain.ts'
import type { LayerKey, LayerLeaves } from './layer-leaves.ts'
import { BITMAP_BYTES } from './leaf-groups.ts'

/** Of one layer: single blocks of a group, or (`groupIndex` null) the layer as a whole. */
export interface Damage extends LayerKey {
  readonly groupIndex: number | null
  /** Ascending; empty when it is the whole layer. */
  readonly blockIndexes: readonly number[]
  /** For people: what is wrong. */
  readonly what: string
}

/** For people: what was found, and when. */
interface Found {
  readonly what: string
  readonly nowMs: number
}

const WHOLE = -1

interface DamageRow {
  readonly disk_id: string
  readonly seq: number
  readonly group_index: number
  readonly blocks: Buffer
  readonly what: string
}

export class DamageRows {
  readonly #statements: ReturnType<typeof prepare>

  constructor(db: Sqlite) {
    this.#statements = prepare(db)
  }

  list(vmId: VmId): Damage[] {
    return this.#statements.all.all(vmId).map((row) => damageOf(vmId, row))
  }

  /** Its tables, its size or its name are wrong, or it is gone: nothing may be read through it or merged with it. */
  isWhole({ vmId, diskId, seq }: LayerKey): boolean {
    return this.#statements.one.get(vmId, diskId, seq, WHOLE) !== undefined
  }

  blocks(key: LayerKey): number[] {
    return this.#statements.layer
      .all(key.vmId, key.diskId, key.seq)
      .flatMap((row) => damageOf(key.vmId, { ...row, disk_id: key.diskId, seq: key.seq }).blockIndexes)
  }

  addWhole({ vmId, diskId, seq }: LayerKey, what: string, nowMs: number): void {
    this.#statements.put.run(vmId, diskId, seq, WHOLE, Buffer.alloc(0), what, nowMs)
  }

  addBlock(key: LayerKey, blockIndex: number, found: Found): void {
    this.addBlocks(key, [blockIndex], found)
  }

  /** One row is written for each group, however many of its blocks there are. */
  addBlocks(key: LayerKey, blockIndexes: readonly number[], { what, nowMs }: Found): void {
    const groups = Map.groupBy(blockIndexes, (blockIndex) => Math.floor(blockIndex / GROUP_CHILDREN))
    for (const [group, members] of groups) {
      const blocks = this.#bitmap(key, group)
      for (const blockIndex of members) {
        const i = blockIndex % GROUP_CHILDREN
        blocks[i >> 3] = (blocks[i >> 3] ?? 0) | (1 << (i & 7))
      }
      this.#statements.put.run(key.vmId, key.diskId, key.seq, group, blocks, what, nowMs)
    }
  }

  clearBlock(key: LayerKey, blockIndex: number): void {
    const group = Math.floor(blockIndex / GROUP_CHILDREN)
    const row = this.#statements.one.get(key.vmId, key.diskId, key.seq, group)
    if (!row) return
    const blocks = this.#bitmap(key, group)
    const i = blockIndex % GROUP_CHILDREN
    blocks[i >> 3] = (blocks[i >> 3] ?? 0) & ~(1 << (i & 7))
    if (blocks.every((byte) => byte === 0)) this.#statements.remove.run(key.vmId, key.diskId, key.seq, group)
    else this.#statements.put.run(key.vmId, key.diskId, key.seq, group, blocks, row.what, row.found_at_ms)
  }

  clearWhole({ vmId, diskId, seq }: LayerKey): void {
    this.#statements.remove.run(vmId, diskId, seq, WHOLE)
  }

  clearLayer({ vmId, diskId, seq }: LayerKey): void {
    this.#statements.removeLayer.run(vmId, diskId, seq)
  }

  removeMember(vmId: VmId, seq: number): void {
    this.#statements.removeMember.run(vmId, seq)
  }

  /** Blocks of `lower` that the merged file still holds are as damaged there. */
  carry(lower: LayerKey, upper: LayerKey, isStillSeen: (blockIndex: number) => boolean, nowMs: number): void {
    for (const row of this.#statements.layer.all(lower.vmId, lower.diskId, lower.seq)) {
      const { blockIndexes, what, groupIndex } = damageOf(lower.vmId, {
        ...row,
        disk_id: lower.diskId,
        seq: lower.seq,
      })
      if (groupIndex === null) this.addWhole(upper, what, nowMs)
      for (const blockIndex of blockIndexes)
        if (isStillSeen(blockIndex)) this.addBlock(upper, blockIndex, { what, nowMs })
    }
    this.clearLayer(lower)
  }

  #bitmap(key: LayerKey, group: number): Buffer {
    const row = this.#statements.one.get(key.vmId, key.diskId, key.seq, group)
    return row?.blocks.length === BITMAP_BYTES ? row.blocks : Buffer.alloc(BITMAP_BYTES)
  }
}

function damageOf(vmId: VmId, row: DamageRow): Damage {
  const { disk_id, seq, group_index, blocks, what } = row
  const blockIndexes: number[] = []
  for (let i = 0; i < blocks.length * 8; i++)
    if (((blocks[i >> 3] ?? 0) & (1 << (i & 7))) !== 0) blockIndexes.push(group_index * GROUP_CHILDREN + i)
  const groupIndex = group_index === WHOLE ? null : group_index
  return { vmId, diskId: disk_id as DiskId, seq, groupIndex, blockIndexes, what }
}

/**
 * Seqs of the members of a chain that see a damaged block: its own layer's, and every later one up to the one that
 * says something else of the block, or is too short for it, or no longer has the disk.
 */
export function damagedSeqs(
  chain: Chain,
  damages: readonly Damage[],
  leaves: Pick<LayerLeaves, 'group'>,
): Set<number> {
  const seqs = new Set<number>()
  for (const damage of damages) {
    const later = [...seqsWith(chain, damage)]
    // Of a layer that is lost whole each of many groups would say the same.
    if (later.every((seq) => seqs.has(seq))) continue
    if (damage.groupIndex === null) for (const seq of later) seqs.add(seq)
    else for (const { seq } of visibleDamage(chain, damage, leaves)) seqs.add(seq)
  }
  return seqs
}

/** From the layer's member on, as long as the disk is there. */
function* seqsWith(chain: Chain, { diskId, seq }: LayerKey): Generator<number, void> {
  for (const member of chain) {
    if (member.seq < seq) continue
    if (!member.disks.some((disk) => disk.diskId === diskId)) return
    yield member.seq
  }
}

/** Which of the damaged blocks of one group each member of the chain sees; those that see none are left out. */
export function* visibleDamage(
  chain: Chain,
  damage: Damage,
  leaves: Pick<LayerLeaves, 'group'>,
): Generator<{ readonly seq: number; readonly blockIndexes: readonly number[] }, void> {
  const { vmId, diskId, groupIndex } = damage
  if (groupIndex === null) return
  let { blockIndexes } = damage
  for (const seq of seqsWith(chain, damage)) {
    const sizeBytes = chain
      .find((member) => member.seq === seq)
      ?.disks.find((disk) => disk.diskId === diskId)?.sizeBytes
    const blockCount = blockCountOf(sizeBytes ?? 0)
    const group = seq > damage.seq ? groupOrNone(leaves, { vmId, diskId, seq }, groupIndex) : undefined
    blockIndexes = blockIndexes.filter(
      (blockIndex) =>
        blockIndex < blockCount && (group?.state(blockIndex % GROUP_CHILDREN) ?? 'absent') === 'absent',
    )
    if (blockIndexes.length === 0) return
    yield { seq, blockIndexes }
  }
}

/** In doubt a layer covers nothing: a point is rather refused than wrong. */
function groupOrNone(leaves: Pick<LayerLeaves, 'group'>, key: LayerKey, groupIndex: number) {
  try {
    return leaves.group(key, groupIndex)
  } catch {
    return undefined
  }
}

function prepare(db: Sqlite) {
  const columns = 'disk_id, seq, group_index, blocks, what, found_at_ms'
  type StoredRow = DamageRow & { readonly found_at_ms: number }
  const layer = 'vm_id = ? AND disk_id = ? AND seq = ?'
  return {
    all: db.prepare<[string], StoredRow>(
      `SELECT ${columns} FROM damage WHERE vm_id = ? ORDER BY disk_id, seq, group_index`,
    ),
    layer: db.prepare<[string, string, number], StoredRow>(
      `SELECT ${columns} FROM damage WHERE ${layer} ORDER BY group_index`,
    ),
    one: db.prepare<[string, string, number, number], StoredRow>(
      `SELECT ${columns} FROM damage WHERE ${layer} AND group_index = ?`,
    ),
    put: db.prepare<[string, string, number, number, Buffer, string, number]>(
      'INSERT OR REPLACE INTO damage (vm_id, disk_id, seq, group_index, blocks, what, found_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?)',
    ),
    remove: db.prepare<[string, string, number, number]>(
      `DELETE FROM damage WHERE ${layer} AND group_index = ?`,
    ),
    removeLayer: db.prepare<[string, string, number]>(`DELETE FROM damage WHERE ${layer}`),
    removeMember: db.prepare<[string, number]>('DELETE FROM damage WHERE vm_id = ? AND seq = ?'),
  }
}
