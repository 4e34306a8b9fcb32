/** Pictures of the consoles of test failovers, by the job that took them: evidence of what came up. */
import type { JobId, VaultId, VmId } from '#shared/ids.ts'
import type { Db } from './schema.ts'

/** Of one VM; older ones go. Each takes some ten to some hundred KiB. */
const KEPT_PER_VM = 20

export interface Picture {
  readonly takenAtMs: number
  readonly png: Uint8Array
}

export async function findPicture(
  db: Db,
  { vaultId, jobId }: { readonly vaultId: VaultId; readonly jobId: JobId },
): Promise<Picture | undefined> {
  const row = await db
    .selectFrom('pictures')
    .select(['taken_at_ms', 'png'])
    .where('vault_id', '=', vaultId)
    .where('job_id', '=', jobId)
    .executeTakeFirst()
  return row && { takenAtMs: row.taken_at_ms, png: row.png }
}

/** In place of one that is there. */
export async function putPicture(
  db: Db,
  { vaultId, jobId, vmId }: { readonly vaultId: VaultId; readonly jobId: JobId; readonly vmId: VmId },
  { takenAtMs, png }: Picture,
): Promise<void> {
  await db
    .insertInto('pictures')
    .values({ vault_id: vaultId, job_id: jobId, vm_id: vmId, taken_at_ms: takenAtMs, png })
    .onConflict((conflict) =>
      conflict.columns(['vault_id', 'job_id']).doUpdateSet({ taken_at_ms: takenAtMs, png }),
    )
    .execute()
  const kept = db
    .selectFrom('pictures')
    .select('job_id')
    .where('vault_id', '=', vaultId)
    .where('vm_id', '=', vmId)
    .orderBy('taken_at_ms', 'desc')
    .limit(KEPT_PER_VM)
  await db
    .deleteFrom('pictures')
    .where('vault_id', '=', vaultId)
    .where('vm_id', '=', vmId)
    .where('job_id', 'not in', kept)
    .execute()
}
