/** What buffer.db knows of each source VM: cursors (I2) and the trees of its disks. */
import { type DiskId, diskId, type FabricVmId, fabricVmId, type VmId, vmId } from '#shared/ids.ts'
import { type ResyncCause, resyncCause } from '#shared/messages/commands.ts'
import type { Sqlite } from '#shared/sqlite.ts'

export interface VmRow {
  readonly vmId: VmId
  readonly fabricVmId: FabricVmId
  readonly epoch: number
  readonly sealedSeq: number
  readonly ackedSeq: number
  readonly ackedCapturedAtMs: number | null
  readonly needsSync: ResyncCause | null
}

export interface DiskRow {
  readonly diskId: DiskId
  readonly sizeBytes: number
  /** Key of its tree in leaf_groups. */
  readonly tree: string
}

export interface VmRows {
  get(vm: VmId): VmRow | undefined
  all(): readonly VmRow[]
  /** Inserts or replaces. */
  put(row: VmRow): void
  remove(vm: VmId): void
  disks(vm: VmId): readonly DiskRow[]
  /** These disks and no others. Trees that lose their disk become garbage. Inside the caller's transaction. */
  replaceDisks(vm: VmId, disks: readonly DiskRow[]): void
}

interface RawVm {
  vm_id: string
  fabric_vm_id: string
  epoch: number
  sealed_seq: number
  acked_seq: number
  acked_captured_at_ms: number | null
  needs_sync: string | null
}

export function openVmRows(db: Sqlite): VmRows {
  const selectOne = db.prepare<[string], RawVm>('SELECT * FROM vms WHERE vm_id = ?')
  const selectAll = db.prepare<[], RawVm>('SELECT * FROM vms ORDER BY vm_id')
  const upsert = db.prepare(
    'INSERT OR REPLACE INTO vms (vm_id, fabric_vm_id, epoch, sealed_seq, acked_seq, acked_captured_at_ms, needs_sync) ' +
      'VALUES (@vmId, @fabricVmId, @epoch, @sealedSeq, @ackedSeq, @ackedCapturedAtMs, @needsSync)',
  )
  const remove = db.prepare<[string]>('DELETE FROM vms WHERE vm_id = ?')
  const selectDisks = db.prepare<[string], { disk_id: string; size_bytes: number; tree: string }>(
    'SELECT disk_id, size_bytes, tree FROM disks WHERE vm_id = ? ORDER BY disk_id',
  )
  const insertDisk = db.prepare<[string, string, number, string]>(
    'INSERT INTO disks (vm_id, disk_id, size_bytes, tree) VALUES (?, ?, ?, ?)',
  )
  const removeDisks = db.prepare<[string]>('DELETE FROM disks WHERE vm_id = ?')
  return {
    get: (vm) => fromRaw(selectOne.get(vm)),
    all: () => selectAll.all().flatMap((raw) => fromRaw(raw) ?? []),
    put: (row) => void upsert.run(row),
    remove(vm) {
      removeDisks.run(vm)
      remove.run(vm)
    },
    disks: (vm) =>
      selectDisks.all(vm).map((raw) => ({
        diskId: diskId.parse(raw.disk_id),
        sizeBytes: raw.size_bytes,
        tree: raw.tree,
      })),
    replaceDisks(vm, disks) {
      removeDisks.run(vm)
      for (const disk of disks) insertDisk.run(vm, disk.diskId, disk.sizeBytes, disk.tree)
    },
  }
}

function fromRaw(raw: RawVm | undefined): VmRow | undefined {
  if (!raw) return undefined
  return {
    vmId: vmId.parse(raw.vm_id),
    fabricVmId: fabricVmId.parse(raw.fabric_vm_id),
    epoch: raw.epoch,
    sealedSeq: raw.sealed_seq,
    ackedSeq: raw.acked_seq,
    ackedCapturedAtMs: raw.acked_captured_at_ms,
    needsSync: raw.needs_sync === null ? null : resyncCause.parse(raw.needs_sync),
  }
}
