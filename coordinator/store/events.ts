import type { ServerId, VaultId, VmId } from '#shared/ids.ts'
import type { Db } from './schema.ts'

export interface EventRow {
  readonly vaultId: VaultId
  /** The same event again is one event (I4). */
  readonly eventId: string
  readonly atMs: number
  readonly severity: 'info' | 'warning' | 'critical'
  readonly code: string
  readonly message: string
  readonly vmId: VmId | null
  readonly serverId: ServerId | null
}

/** False: it was known already. */
export async function insertEvent(db: Db, event: EventRow): Promise<boolean> {
  const { numInsertedOrUpdatedRows } = await db
    .insertInto('events')
    .values({
      vault_id: event.vaultId,
      event_id: event.eventId,
      at_ms: event.atMs,
      severity: event.severity,
      code: event.code,
      message: event.message,
      vm_id: event.vmId,
      server_id: event.serverId,
    })
    .onConflict((conflict) => conflict.columns(['vault_id', 'event_id']).doNothing())
    .executeTakeFirstOrThrow()
  return numInsertedOrUpdatedRows === 1n
}

export async function listEvents(db: Db, limit: number): Promise<readonly EventRow[]> {
  const rows = await db.selectFrom('events').selectAll().orderBy('sequence', 'desc').limit(limit).execute()
  return rows.map((row) => ({
    vaultId: row.vault_id as VaultId,
    eventId: row.event_id,
    atMs: row.at_ms,
    severity: row.severity,
    code: row.code,
    message: row.message,
    vmId: row.vm_id as VmId | null,
    serverId: row.server_id as ServerId | null,
  }))
}

/** Newest `keep` stay. */
export async function pruneEvents(db: Db, keep: number): Promise<void> {
  const oldest = await db
    .selectFrom('events')
    .select('sequence')
    .orderBy('sequence', 'desc')
    .offset(keep)
    .limit(1)
    .executeTakeFirst()
  if (oldest) await db.deleteFrom('events').where('sequence', '<=', oldest.sequence).execute()
}
