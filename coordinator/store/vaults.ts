import type { Selectable } from 'kysely'
import type { VaultId } from '#shared/ids.ts'
import type { Database, Db } from './schema.ts'

export interface VaultRow {
  readonly vaultId: VaultId
  readonly name: string
  readonly region: string
  readonly subscription: string
  readonly createdAtMs: number
  readonly keyGeneration: number
  /** Base64. */
  readonly publicKey: string
  readonly certificatePem: string | null
}

const fromRow = (row: Selectable<Database['vaults']>): VaultRow => ({
  vaultId: row.vault_id as VaultId,
  name: row.name,
  region: row.region,
  subscription: row.subscription,
  createdAtMs: row.created_at_ms,
  keyGeneration: row.key_generation,
  publicKey: row.public_key,
  certificatePem: row.certificate_pem,
})

export async function listVaults(db: Db): Promise<readonly VaultRow[]> {
  const rows = await db.selectFrom('vaults').selectAll().orderBy('name').execute()
  return rows.map(fromRow)
}

export async function findVault(db: Db, vaultId: VaultId): Promise<VaultRow | undefined> {
  const row = await db.selectFrom('vaults').selectAll().where('vault_id', '=', vaultId).executeTakeFirst()
  return row && fromRow(row)
}

export async function insertVault(db: Db, vault: VaultRow): Promise<void> {
  await db
    .insertInto('vaults')
    .values({
      vault_id: vault.vaultId,
      name: vault.name,
      region: vault.region,
      subscription: vault.subscription,
      created_at_ms: vault.createdAtMs,
      key_generation: vault.keyGeneration,
      public_key: vault.publicKey,
      certificate_pem: vault.certificatePem,
    })
    .execute()
}

export async function setVaultCertificate(db: Db, vaultId: VaultId, pem: string): Promise<void> {
  await db.updateTable('vaults').set({ certificate_pem: pem }).where('vault_id', '=', vaultId).execute()
}

export async function setVaultKey(
  db: Db,
  vaultId: VaultId,
  key: { readonly generation: number; readonly publicKey: string },
): Promise<void> {
  await db
    .updateTable('vaults')
    .set({ key_generation: key.generation, public_key: key.publicKey })
    .where('vault_id', '=', vaultId)
    .execute()
}
