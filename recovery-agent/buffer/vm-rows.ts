/**
 * What buffer.db knows of each source VM: cursors (I2) and the trees of its disks. The row of a VM also has a checksum
 * over the rows of its disks, so that a disk that is gone is missed.
 */
import { z } from 'zod'
import type { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { type DiskId, diskId, type FabricVmId, fabricVmId, type VmId, vmId } from '#shared/ids.ts'
import { type ResyncCause, resyncCause } from '#shared/messages/commands.ts'
import type { Sqlite } from '#shared/sqlite.ts'
import { decodeOwed, encodeOwed, type OwedRange } from './owed.ts'
import { damagedRow, ensureIntact, rowChecksum } from './row-checksum.ts'

export interface VmRow {
  readonly vmId: VmId
  readonly fabricVmId: FabricVmId
  readonly epoch: number
  readonly sealedSeq: number
  readonly ackedSeq: number
  readonly ackedCapturedAtMs: number | null
  readonly needsSync: ResyncCause | null
  /** Disks of the acknowledged point (`layoutOf`); null: not known. */
  readonly ackedLayout: string | null
  /** Oldest first; none while a synchronization is due, which ends them. */
  readonly owed: readonly OwedRange[]
}

/** How far a disk was re-read against its tree although the tracker called it unchanged. */
const diskWalk = z.strictObject({
  /** The walk goes on here. */
  nextBlock: z.int().nonnegative(),
  /** When the last walk over the whole disk ended; null: not yet. */
  provedAtMs: z.number().nullable(),
})
export type DiskWalk = z.infer<typeof diskWalk>

export interface DiskRow {
  readonly diskId: DiskId
  readonly sizeBytes: number
  /** Key of its tree. */
  readonly tree: string
  /** Left out: nothing was re-read yet. */
  readonly walk?: DiskWalk
}

export interface VmRows {
  /** Throws `buffer-damaged`. */
  get(vm: VmId): VmRow | undefined
  /** Without rows that are damaged. */
  all(): readonly VmRow[]
  /** Inserts or replaces. Where the row that was there is damaged, its disks go: nothing says which they were. */
  put(row: VmRow): void
  remove(vm: VmId): void
  /** Throws `buffer-damaged`. */
  disks(vm: VmId): readonly DiskRow[]
  /** These disks and no others. Trees that lose their disk become garbage. Inside the caller's transaction. */
  replaceDisks(vm: VmId, disks: readonly DiskRow[]): void
  /** Disks of a VM that has no row: the row is gone. */
  hasDisks(vm: VmId): boolean
  /** Deletes rows of VMs that are damaged, with the rows of their disks, and names them. */
  removeDamaged(): readonly { readonly vmId: string; readonly error: HotsiteError }[]
}

interface RawVm {
  vm_id: string
  fabric_vm_id: string
  epoch: number
  sealed_seq: number
  acked_seq: number
  acked_captured_at_ms: number | null
  needs_sync: string | null
  /** Left out, as the next: by a file before version 4. */
  acked_layout?: string | null
  owed?: string
  disks_checksum: number
  checksum: number
}

interface RawDisk {
  vm_id: string
  disk_id: string
  size_bytes: number
  tree: string
  walk_json: string | null
  checksum: number
}

const vmValues = (raw: Omit<RawVm, 'checksum'>) => [
  raw.vm_id,
  raw.fabric_vm_id,
  raw.epoch,
  raw.sealed_seq,
  raw.acked_seq,
  raw.acked_captured_at_ms,
  raw.needs_sync,
  raw.disks_checksum,
  ...(raw.owed === undefined ? [] : [raw.acked_layout ?? null, raw.owed]),
]
const diskValues = (raw: Omit<RawDisk, 'checksum'>) => [
  raw.vm_id,
  raw.disk_id,
  raw.size_bytes,
  raw.tree,
  raw.walk_json,
]

export const vmChecksum = (raw: Omit<RawVm, 'checksum'>): number => rowChecksum('vms', vmValues(raw))
export const diskChecksum = (raw: Omit<RawDisk, 'checksum'>): number => rowChecksum('disks', diskValues(raw))
/** Over the checksums of a VM's disks, ordered by disk id. */
export const disksChecksum = (rows: readonly { readonly checksum: number }[]): number =>
  rowChecksum(
    'disks of a VM',
    rows.map(({ checksum }) => checksum),
  )

export function openVmRows(db: Sqlite): VmRows {
  return new SqliteVmRows(db)
}

class SqliteVmRows implements VmRows {
  readonly #sql: ReturnType<typeof prepare>
  readonly put: (row: VmRow) => void
  readonly removeDamaged: VmRows['removeDamaged']

  constructor(db: Sqlite) {
    this.#sql = prepare(db)
    this.put = db.transaction((row) => this.#put(row))
    this.removeDamaged = db.transaction(() => this.#removeDamaged())
  }

  get(vm: VmId): VmRow | undefined {
    const raw = this.#sql.selectVm.get(vm)
    return raw && intactVm(raw)
  }

  all(): readonly VmRow[] {
    return this.#sql.selectVms.all().flatMap((raw) => (isIntactVm(raw) ? [fromRaw(raw)] : []))
  }

  remove(vm: VmId): void {
    this.#sql.removeDisks.run(vm)
    this.#sql.removeVm.run(vm)
  }

  disks(vm: VmId): readonly DiskRow[] {
    const raw = this.#sql.selectVm.get(vm)
    if (!raw) return []
    intactVm(raw)
    const disks = this.#sql.selectDisks.all(vm)
    for (const disk of disks)
      ensureIntact('disks', `${vm}/${disk.disk_id}`, { checksum: disk.checksum, values: diskValues(disk) })
    if (disksChecksum(disks) !== raw.disks_checksum)
      throw damagedRow('disks', `${vm}/*`, `its ${disks.length} rows are not those that were written`)
    return disks.map(diskFromRaw)
  }

  replaceDisks(vm: VmId, disks: readonly DiskRow[]): void {
    this.#sql.removeDisks.run(vm)
    for (const disk of disks) {
      const raw = {
        vm_id: vm,
        disk_id: disk.diskId,
        size_bytes: disk.sizeBytes,
        tree: disk.tree,
        walk_json: disk.walk ? JSON.stringify(disk.walk) : null,
      }
      this.#sql.insertDisk.run({ ...raw, checksum: diskChecksum(raw) })
    }
    const raw = this.#sql.selectVm.get(vm)
    if (!raw) return
    intactVm(raw)
    this.#write({ ...raw, disks_checksum: disksChecksum(this.#sql.selectDisks.all(vm)) })
  }

  hasDisks(vm: VmId): boolean {
    return this.#sql.selectDisks.get(vm) !== undefined
  }

  #put(row: VmRow): void {
    const before = this.#sql.selectVm.get(row.vmId)
    const intact = before !== undefined && isIntactVm(before)
    if (!intact) this.#sql.removeDisks.run(row.vmId)
    this.#write({
      vm_id: row.vmId,
      fabric_vm_id: row.fabricVmId,
      epoch: row.epoch,
      sealed_seq: row.sealedSeq,
      acked_seq: row.ackedSeq,
      acked_captured_at_ms: row.ackedCapturedAtMs,
      needs_sync: row.needsSync,
      acked_layout: row.ackedLayout,
      owed: encodeOwed(row.needsSync === null ? row.owed : []),
      disks_checksum: intact ? before.disks_checksum : disksChecksum([]),
    })
  }

  #write(raw: Omit<RawVm, 'checksum'>): void {
    this.#sql.upsertVm.run({ ...raw, checksum: vmChecksum(raw) })
  }

  #removeDamaged(): readonly { vmId: string; error: HotsiteError }[] {
    const damaged = this.#sql.selectVms.all().filter((raw) => !isIntactVm(raw))
    for (const { vm_id } of damaged) {
      this.#sql.removeDisks.run(vm_id)
      this.#sql.removeVm.run(vm_id)
    }
    return damaged.map(({ vm_id }) => ({
      vmId: String(vm_id),
      error: damagedRow('vms', String(vm_id), 'its checksum does not hold'),
    }))
  }
}

function prepare(db: Sqlite) {
  return {
    selectVm: db.prepare<[string], RawVm>('SELECT * FROM vms WHERE vm_id = ?'),
    selectVms: db.prepare<[], RawVm>('SELECT * FROM vms ORDER BY vm_id'),
    upsertVm: db.prepare(
      'INSERT OR REPLACE INTO vms (vm_id, fabric_vm_id, epoch, sealed_seq, acked_seq, acked_captured_at_ms, needs_sync, ' +
        'acked_layout, owed, disks_checksum, checksum) VALUES (@vm_id, @fabric_vm_id, @epoch, @sealed_seq, @acked_seq, ' +
        '@acked_captured_at_ms, @needs_sync, @acked_layout, @owed, @disks_checksum, @checksum)',
    ),
    removeVm: db.prepare<[string]>('DELETE FROM vms WHERE vm_id = ?'),
    selectDisks: db.prepare<[string], RawDisk>('SELECT * FROM disks WHERE vm_id = ? ORDER BY disk_id'),
    insertDisk: db.prepare(
      'INSERT OR REPLACE INTO disks (vm_id, disk_id, size_bytes, tree, walk_json, checksum) ' +
        'VALUES (@vm_id, @disk_id, @size_bytes, @tree, @walk_json, @checksum)',
    ),
    removeDisks: db.prepare<[string]>('DELETE FROM disks WHERE vm_id = ?'),
  }
}

function isIntactVm(raw: RawVm): boolean {
  return raw.checksum === vmChecksum(raw)
}

function intactVm(raw: RawVm): VmRow {
  ensureIntact('vms', String(raw.vm_id), { checksum: raw.checksum, values: vmValues(raw) })
  return fromRaw(raw)
}

function fromRaw(raw: RawVm): VmRow {
  return {
    vmId: vmId.parse(raw.vm_id),
    fabricVmId: fabricVmId.parse(raw.fabric_vm_id),
    epoch: raw.epoch,
    sealedSeq: raw.sealed_seq,
    ackedSeq: raw.acked_seq,
    ackedCapturedAtMs: raw.acked_captured_at_ms,
    needsSync: raw.needs_sync === null ? null : resyncCause.parse(raw.needs_sync),
    ackedLayout: raw.acked_layout ?? null,
    owed: decodeOwed(raw.owed ?? '[]'),
  }
}

function diskFromRaw(raw: RawDisk): DiskRow {
  return {
    diskId: diskId.parse(raw.disk_id),
    sizeBytes: raw.size_bytes,
    tree: raw.tree,
    ...(raw.walk_json === null ? {} : { walk: diskWalk.parse(JSON.parse(raw.walk_json)) }),
  }
}
