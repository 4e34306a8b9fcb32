import type { ServerId, VaultId } from '#shared/ids.ts'
import { type ReportOf, reports } from '#shared/messages/reports.ts'
import { readDocument } from './documents.ts'
import type { Db } from './schema.ts'

/** Reports that are the whole state of one thing: the newest replaces the one before. */
export type KeptReport = 'agent' | 'replica' | 'replication'

export interface ReportRow<Kind extends KeptReport> {
  readonly vaultId: VaultId
  readonly serverId: ServerId
  readonly receivedAtMs: number
  readonly report: ReportOf<Kind>
}

/** subject: the VM, or empty for what a server says of itself. */
export async function putReport<Kind extends KeptReport>(
  db: Db,
  kind: Kind,
  subject: string,
  row: ReportRow<Kind>,
): Promise<void> {
  const values = { received_at_ms: row.receivedAtMs, document: JSON.stringify(row.report) }
  await db
    .insertInto('reports')
    .values({ vault_id: row.vaultId, server_id: row.serverId, kind, subject, ...values })
    .onConflict((conflict) =>
      conflict.columns(['vault_id', 'server_id', 'kind', 'subject']).doUpdateSet(values),
    )
    .execute()
}

export async function listReports<Kind extends KeptReport>(
  db: Db,
  kind: Kind,
  subject?: string,
): Promise<readonly ReportRow<Kind>[]> {
  let query = db.selectFrom('reports').selectAll().where('kind', '=', kind)
  if (subject !== undefined) query = query.where('subject', '=', subject)
  const rows = await query.execute()
  return rows.map((row) => ({
    vaultId: row.vault_id as VaultId,
    serverId: row.server_id as ServerId,
    receivedAtMs: row.received_at_ms,
    report: readDocument(
      reports[kind],
      row.document,
      `a ${kind} report of ${row.server_id}`,
    ) as ReportOf<Kind>,
  }))
}

export async function deleteVmReports(db: Db, vaultId: VaultId, vmId: string): Promise<void> {
  await db
    .deleteFrom('reports')
    .where('vault_id', '=', vaultId)
    .where('subject', '=', vmId)
    .where('kind', 'in', ['replica', 'replication'])
    .execute()
}
