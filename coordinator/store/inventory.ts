import { z } from 'zod'
import type { ServerId, VaultId } from '#shared/ids.ts'
import { type InventoryReport, inventoryReport } from '#shared/messages/reports.ts'
import { readDocument } from './documents.ts'
import type { Db } from './schema.ts'

/** What one provider last said of its fabric. */
export interface InventoryRow {
  readonly vaultId: VaultId
  readonly serverId: ServerId
  readonly receivedAtMs: number
  readonly report: InventoryReport
}

const { clouds, hosts, networks, classifications, quiescesGuests, vms } = inventoryReport.shape
const about = z.object({
  vmmVersion: z.string(),
  version: z.string(),
  nowMs: z.number(),
  classifications,
  quiescesGuests,
})

export async function listInventories(db: Db): Promise<readonly InventoryRow[]> {
  const rows = await db.selectFrom('inventories').selectAll().orderBy('vmm_server').execute()
  return rows.map((row) => {
    const where = `the inventory of ${row.vmm_server}`
    return {
      vaultId: row.vault_id as VaultId,
      serverId: row.server_id as ServerId,
      receivedAtMs: row.received_at_ms,
      report: {
        vmmServer: row.vmm_server,
        ...readDocument(about, row.about, where),
        clouds: readDocument(clouds, row.clouds, where),
        hosts: readDocument(hosts, row.hosts, where),
        networks: readDocument(networks, row.networks, where),
        vms: readDocument(vms, row.vms, where),
      },
    }
  })
}

export async function putInventory(
  db: Db,
  { vaultId, serverId, receivedAtMs, report }: InventoryRow,
): Promise<void> {
  const { vmmVersion, version, nowMs, classifications: known, quiescesGuests: quiesces } = report
  const values = {
    vmm_server: report.vmmServer,
    received_at_ms: receivedAtMs,
    clouds: JSON.stringify(report.clouds),
    hosts: JSON.stringify(report.hosts),
    networks: JSON.stringify(report.networks),
    vms: JSON.stringify(report.vms),
    about: JSON.stringify({
      vmmVersion,
      version,
      nowMs,
      classifications: known,
      quiescesGuests: quiesces,
    }),
  }
  await db
    .insertInto('inventories')
    .values({ vault_id: vaultId, server_id: serverId, ...values })
    .onConflict((conflict) => conflict.columns(['vault_id', 'server_id']).doUpdateSet(values))
    .execute()
}
