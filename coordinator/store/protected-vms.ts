import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { JobId, VaultId, VmId } from '#shared/ids.ts'
import { type ProtectedVm, protectedVmDocument, readDocument } from './documents.ts'
import type { Db } from './schema.ts'

export interface StoredVm {
  readonly vm: ProtectedVm
  /** Raised by every write; a writer that read an older one is refused. */
  readonly version: number
}

export async function listProtectedVms(db: Db): Promise<readonly StoredVm[]> {
  const rows = await db.selectFrom('protected_vms').selectAll().orderBy('name').execute()
  return rows.map(({ document, version, vm_id }) => ({
    vm: readDocument(protectedVmDocument, document, `protected VM ${vm_id}`),
    version,
  }))
}

export async function findProtectedVm(db: Db, vaultId: VaultId, vmId: VmId): Promise<StoredVm | undefined> {
  const row = await db
    .selectFrom('protected_vms')
    .selectAll()
    .where('vault_id', '=', vaultId)
    .where('vm_id', '=', vmId)
    .executeTakeFirst()
  if (!row) return undefined
  return { vm: readDocument(protectedVmDocument, row.document, `protected VM ${vmId}`), version: row.version }
}

export interface Change {
  readonly event: string
  readonly jobId: JobId | null
  readonly nowMs: number
}

/** Inside a transaction: the row, its history, and the epoch, which never goes back. */
export async function insertProtectedVm(db: Db, vm: ProtectedVm, change: Change): Promise<void> {
  await db
    .insertInto('protected_vms')
    .values({ ...columns(vm), version: 1 })
    .execute()
  await recordHistory(db, vm, change)
}

/** Throws `state-changed` when someone wrote since `expectedVersion` was read. */
export async function updateProtectedVm(
  db: Db,
  vm: ProtectedVm,
  change: Change & { readonly expectedVersion: number },
): Promise<void> {
  const { numUpdatedRows } = await db
    .updateTable('protected_vms')
    .set({ ...columns(vm), version: change.expectedVersion + 1 })
    .where('vault_id', '=', vm.vaultId)
    .where('vm_id', '=', vm.vmId)
    .where('version', '=', change.expectedVersion)
    .executeTakeFirst()
  if (numUpdatedRows !== 1n) throw new HotsiteError('state-changed', `VM ${vm.name} was changed meanwhile`)
  await recordHistory(db, vm, change)
}

export async function deleteProtectedVm(db: Db, vm: ProtectedVm, change: Change): Promise<void> {
  await recordHistory(db, vm, change)
  await db
    .deleteFrom('protected_vms')
    .where('vault_id', '=', vm.vaultId)
    .where('vm_id', '=', vm.vmId)
    .execute()
}

/** One above every epoch this VM ever had, also in an earlier protection (I5). */
export async function nextEpoch(db: Db, vaultId: VaultId, vmId: VmId): Promise<number> {
  const row = await db
    .selectFrom('epochs')
    .select('epoch')
    .where('vault_id', '=', vaultId)
    .where('vm_id', '=', vmId)
    .executeTakeFirst()
  return (row?.epoch ?? 0) + 1
}

function columns(vm: ProtectedVm) {
  return {
    vault_id: vm.vaultId,
    vm_id: vm.vmId,
    name: vm.name,
    epoch: vm.epoch,
    state: vm.protection.kind,
    // Checked on the way in as well: a document that cannot be read back must never be written.
    document: JSON.stringify(protectedVmDocument.parse(vm)),
  }
}

async function recordHistory(db: Db, vm: ProtectedVm, { event, jobId, nowMs }: Change): Promise<void> {
  await db
    .insertInto('state_history')
    .values({
      vault_id: vm.vaultId,
      vm_id: vm.vmId,
      at_ms: nowMs,
      event,
      state: JSON.stringify({ protection: vm.protection, test: vm.test }),
      epoch: vm.epoch,
      job_id: jobId,
    })
    .execute()
  await db
    .insertInto('epochs')
    .values({ vault_id: vm.vaultId, vm_id: vm.vmId, epoch: vm.epoch })
    .onConflict((conflict) =>
      conflict
        .columns(['vault_id', 'vm_id'])
        .doUpdateSet({ epoch: vm.epoch })
        .where('epochs.epoch', '<', vm.epoch),
    )
    .execute()
}

export async function historyOf(db: Db, vaultId: VaultId, vmId: VmId) {
  return db
    .selectFrom('state_history')
    .select(['at_ms', 'event', 'state', 'epoch', 'job_id'])
    .where('vault_id', '=', vaultId)
    .where('vm_id', '=', vmId)
    .orderBy('sequence')
    .execute()
}

/** Newest `keep` rows of all VMs stay. */
export async function pruneHistory(db: Db, keep: number): Promise<void> {
  const oldest = await db
    .selectFrom('state_history')
    .select('sequence')
    .orderBy('sequence', 'desc')
    .offset(keep)
    .limit(1)
    .executeTakeFirst()
  if (oldest) await db.deleteFrom('state_history').where('sequence', '<=', oldest.sequence).execute()
}
