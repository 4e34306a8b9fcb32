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

/** VMs of one server: a large cluster has a tenth of it. An agent that reports ever new ones fills no table (I13). */
const SUBJECTS_PER_SERVER_MAX = 10_000

/** subject: the VM, or empty for what a server says of itself. False: one subject too many, and it is not kept. */
export async function putReport<Kind extends KeptReport>(
  db: Db,
  kind: Kind,
  subject: string,
  row: ReportRow<Kind>,
): Promise<boolean> {
  const values = { received_at_ms: row.receivedAtMs, document: JSON.stringify(row.report) }
  const ofServer = { vault_id: row.vaultId, server_id: row.serverId, kind }
  const { numUpdatedRows } = await db
    .updateTable('reports')
    .set(values)
    .where('vault_id', '=', row.vaultId)
    .where('server_id', '=', row.serverId)
    .where('kind', '=', kind)
    .where('subject', '=', subject)
    .executeTakeFirst()
  if (numUpdatedRows > 0n) return true
  const { count } = await db
    .selectFrom('reports')
    .select(({ fn }) => fn.countAll<number>().as('count'))
    .where('vault_id', '=', row.vaultId)
    .where('server_id', '=', row.serverId)
    .where('kind', '=', kind)
    .executeTakeFirstOrThrow()
  if (count >= SUBJECTS_PER_SERVER_MAX) return false
  await db
    .insertInto('reports')
    .values({ ...ofServer, subject, ...values })
    .execute()
  return true
}

/** Of VMs that are protected no more, and of which nothing was heard since. */
export async function pruneReports(db: Db, beforeMs: number): Promise<void> {
  await db
    .deleteFrom('reports')
    .where('kind', 'in', ['replica', 'replication'])
    .where('received_at_ms', '<', beforeMs)
    .where((where) =>
      where.not(
        where.exists(
          where
            .selectFrom('protected_vms')
            .select('protected_vms.vm_id')
            .whereRef('protected_vms.vault_id', '=', 'reports.vault_id')
            .whereRef('protected_vms.vm_id', '=', 'reports.subject'),
        ),
      ),
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
