import { z } from 'zod'
import type { PairingId, VaultId } from '#shared/ids.ts'
import { type ReplicationPolicy, replicationPolicy } from '#shared/messages/policy.ts'
import { readDocument } from './documents.ts'
import type { Db } from './schema.ts'

export interface CloudRef {
  readonly vmmServer: string
  readonly cloud: string
}

export interface Pairing {
  readonly vaultId: VaultId
  readonly pairingId: PairingId
  readonly source: CloudRef
  readonly target: CloudRef
  readonly policy: ReplicationPolicy
  readonly networkMap: Readonly<Record<string, string>>
  readonly createdAtMs: number
}

export const cloudName = ({ vmmServer, cloud }: CloudRef): string => `${vmmServer}/${cloud}`
export const sameCloud = (a: CloudRef, b: CloudRef): boolean => cloudName(a) === cloudName(b)

export async function listPairings(db: Db): Promise<readonly Pairing[]> {
  const rows = await db.selectFrom('pairings').selectAll().orderBy('created_at_ms').execute()
  return rows.map((row) => {
    const where = `pairing ${row.pairing_id}`
    return {
      vaultId: row.vault_id as VaultId,
      pairingId: row.pairing_id as PairingId,
      source: { vmmServer: row.source_vmm, cloud: row.source_cloud },
      target: { vmmServer: row.target_vmm, cloud: row.target_cloud },
      policy: readDocument(replicationPolicy, row.policy, where),
      networkMap: readDocument(z.record(z.string(), z.string()), row.network_map, where),
      createdAtMs: row.created_at_ms,
    }
  })
}

export async function insertPairing(db: Db, pairing: Pairing): Promise<void> {
  await db
    .insertInto('pairings')
    .values({
      vault_id: pairing.vaultId,
      pairing_id: pairing.pairingId,
      source_vmm: pairing.source.vmmServer,
      source_cloud: pairing.source.cloud,
      target_vmm: pairing.target.vmmServer,
      target_cloud: pairing.target.cloud,
      policy: JSON.stringify(pairing.policy),
      network_map: JSON.stringify(pairing.networkMap),
      created_at_ms: pairing.createdAtMs,
    })
    .execute()
}

export async function deletePairing(db: Db, { vaultId, pairingId }: Pairing): Promise<void> {
  await db
    .deleteFrom('pairings')
    .where('vault_id', '=', vaultId)
    .where('pairing_id', '=', pairingId)
    .execute()
}
