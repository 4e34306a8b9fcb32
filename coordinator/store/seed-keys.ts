/** One key a VM, as long as its seed is on its way. Sealed: who has the database alone has no key (I15). */
import type { VaultId, VmId } from '#shared/ids.ts'
import type { Db } from './schema.ts'

interface Owner {
  readonly vaultId: VaultId
  readonly vmId: VmId
}

export async function findSealedKey(db: Db, { vaultId, vmId }: Owner): Promise<Uint8Array | undefined> {
  const row = await db
    .selectFrom('seed_keys')
    .select('sealed')
    .where('vault_id', '=', vaultId)
    .where('vm_id', '=', vmId)
    .executeTakeFirst()
  return row?.sealed
}

/** In place of one that is there. */
export async function putSealedKey(
  db: Db,
  { vaultId, vmId }: Owner,
  { sealed, nowMs }: { readonly sealed: Uint8Array; readonly nowMs: number },
): Promise<void> {
  await db
    .insertInto('seed_keys')
    .values({ vault_id: vaultId, vm_id: vmId, sealed, created_at_ms: nowMs })
    .onConflict((conflict) =>
      conflict.columns(['vault_id', 'vm_id']).doUpdateSet({ sealed, created_at_ms: nowMs }),
    )
    .execute()
}

export async function deleteSealedKey(db: Db, { vaultId, vmId }: Owner): Promise<void> {
  await db.deleteFrom('seed_keys').where('vault_id', '=', vaultId).where('vm_id', '=', vmId).execute()
}
