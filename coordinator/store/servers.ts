import type { Selectable } from 'kysely'
import type { ServerId, VaultId } from '#shared/ids.ts'
import type { Database, Db } from './schema.ts'

export interface ServerRow {
  readonly vaultId: VaultId
  readonly serverId: ServerId
  readonly kind: 'provider' | 'agent'
  readonly name: string
  /** As it called itself when it registered. */
  readonly host: string
  /** Base64 of the Ed25519 key. */
  readonly publicKey: string
  /** Of the vault key that signed its membership. */
  readonly generation: number
  readonly registeredAtMs: number
  readonly membershipExpiresAtMs: number
  readonly revokedAtMs: number | null
  readonly lastSeenAtMs: number | null
  readonly clockSkewMs: number | null
  readonly bytesReceived: number
  readonly bytesSent: number
}

export type NewServer = Pick<
  ServerRow,
  | 'vaultId'
  | 'serverId'
  | 'kind'
  | 'name'
  | 'host'
  | 'publicKey'
  | 'generation'
  | 'registeredAtMs'
  | 'membershipExpiresAtMs'
>

const fromRow = (row: Selectable<Database['servers']>): ServerRow => ({
  vaultId: row.vault_id as VaultId,
  serverId: row.server_id as ServerId,
  kind: row.kind,
  name: row.name,
  host: row.host,
  publicKey: row.public_key,
  generation: row.generation,
  registeredAtMs: row.registered_at_ms,
  membershipExpiresAtMs: row.membership_expires_at_ms,
  revokedAtMs: row.revoked_at_ms,
  lastSeenAtMs: row.last_seen_at_ms,
  clockSkewMs: row.clock_skew_ms,
  bytesReceived: row.bytes_received,
  bytesSent: row.bytes_sent,
})

/** Removed ones included: a revocation must be known for ever. */
export async function listAllServers(db: Db): Promise<readonly ServerRow[]> {
  const rows = await db.selectFrom('servers').selectAll().orderBy('name').execute()
  return rows.map(fromRow)
}

export async function listServers(db: Db, vaultId?: VaultId): Promise<readonly ServerRow[]> {
  const all = await listAllServers(db)
  return all.filter((row) => row.revokedAtMs === null && (vaultId === undefined || row.vaultId === vaultId))
}

/** Repeatable: the same server again gets the newer facts. */
export async function putServer(db: Db, server: NewServer): Promise<void> {
  const values = {
    kind: server.kind,
    name: server.name,
    host: server.host,
    public_key: server.publicKey,
    generation: server.generation,
    registered_at_ms: server.registeredAtMs,
    membership_expires_at_ms: server.membershipExpiresAtMs,
  }
  await db
    .insertInto('servers')
    .values({ vault_id: server.vaultId, server_id: server.serverId, ...values })
    .onConflict((conflict) => conflict.columns(['vault_id', 'server_id']).doUpdateSet(values))
    .execute()
}

interface ServerKey {
  readonly vaultId: VaultId
  readonly serverId: ServerId
}

export async function revokeServer(db: Db, { vaultId, serverId }: ServerKey, nowMs: number): Promise<void> {
  await db
    .updateTable('servers')
    .set({ revoked_at_ms: nowMs })
    .where('vault_id', '=', vaultId)
    .where('server_id', '=', serverId)
    .execute()
  await db
    .updateTable('outbox')
    .set({ state: 'abandoned', ended_at_ms: nowMs })
    .where('vault_id', '=', vaultId)
    .where('server_id', '=', serverId)
    .where('state', '=', 'open')
    .execute()
  for (const table of ['reports', 'inventories'] as const)
    await db.deleteFrom(table).where('vault_id', '=', vaultId).where('server_id', '=', serverId).execute()
}

export async function noteSeen(
  db: Db,
  { vaultId, serverId }: ServerKey,
  seen: { atMs: number; addReceived: number; addSent: number },
): Promise<void> {
  await db
    .updateTable('servers')
    .set((row) => ({
      last_seen_at_ms: seen.atMs,
      bytes_received: row('bytes_received', '+', seen.addReceived),
      bytes_sent: row('bytes_sent', '+', seen.addSent),
    }))
    .where('vault_id', '=', vaultId)
    .where('server_id', '=', serverId)
    .execute()
}

export async function setClockSkew(db: Db, { vaultId, serverId }: ServerKey, skewMs: number): Promise<void> {
  await db
    .updateTable('servers')
    .set({ clock_skew_ms: Math.round(skewMs) })
    .where('vault_id', '=', vaultId)
    .where('server_id', '=', serverId)
    .execute()
}
