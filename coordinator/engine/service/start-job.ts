import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { jobId, type VaultId, type VmId } from '#shared/ids.ts'
import { canonicalJson } from '#shared/trust/canonical-json.ts'
import type { JobView } from '../../admin/views.ts'
import { admit } from '../../domain/admit.ts'
import {
  judge,
  type Operation,
  type OperationVerdict,
  type VmOperation,
} from '../../domain/allowed-operations.ts'
import { operationWords } from '../../domain/operation-words.ts'
import { findActiveJob, findJob, insertJob, type JobRow } from '../../store/jobs.ts'
import { findProtectedVm } from '../../store/protected-vms.ts'
import type { Db } from '../../store/schema.ts'
import { endJobFor } from '../end-job.ts'
import type { Engine } from '../engine.ts'
import { jobKindOf } from '../kinds/job-kinds.ts'
import { pointsAt } from '../peers.ts'
import { randomId } from '../random-id.ts'
import { jobView } from './job-views.ts'

export interface JobRequest {
  readonly vaultId: VaultId
  readonly vmId: VmId
  readonly vmName: string
  readonly operation: Operation
  readonly params: Readonly<Record<string, unknown>>
}

/** Accepts the request once, recognises a repeat, or denies it; decided and stored in one transaction. */
export async function startJob(engine: Engine, request: JobRequest): Promise<JobView> {
  const params = canonicalJson(request.params)
  const job = await engine.db.transaction().execute(async (tx): Promise<JobRow> => {
    const { vaultId, vmId, vmName, operation } = request
    const active = (await findActiveJob(tx, vaultId, vmId)) ?? null
    const verdict = await judgeNow(tx, request)
    const admission = admit({ operation, params, active, verdict })
    if (admission.kind === 'denied')
      throw new HotsiteError(
        admission.code,
        `${operationWords(operation)} of ${vmName}: ${admission.reason}`,
        {
          details: active ? { jobId: active.jobId } : {},
        },
      )
    if (admission.kind === 'accepted') {
      if (admission.insteadOf !== undefined) {
        const reason = `it made way for the ${operationWords(operation)} of ${vmName}`
        await endJobFor(engine, tx, admission.insteadOf, reason)
      }
      const id = jobId.parse(randomId('job', engine.rng))
      const { steps } = jobKindOf(operation)
      const createdAtMs = engine.clock.now()
      await insertJob(tx, { vaultId, jobId: id, kind: operation, vmId, vmName, params, createdAtMs }, steps)
      engine.log.info('job accepted', { jobId: id, kind: operation, vmId, vmName })
      return (await findJob(tx, id)) ?? Promise.reject(new Error('the job was just inserted'))
    }
    return active ?? Promise.reject(new Error('a recognised request has an active job'))
  })
  engine.bus.notify()
  return jobView(engine.db, job)
}

async function judgeNow(tx: Db, { vaultId, vmId, vmName, operation }: JobRequest): Promise<OperationVerdict> {
  const stored = await findProtectedVm(tx, vaultId, vmId)
  if (operation === 'protect') {
    if (stored) throw new HotsiteError('vm-already-protected', `${vmName} is protected already`)
    return { allowed: true }
  }
  // The first export is what protects the VM.
  if (!stored && operation === 'exportSeed') return { allowed: true }
  if (!stored) throw new HotsiteError('vm-not-protected', `${vmName} is not protected`)
  const { protection, test } = stored.vm
  const points = await pointsAt(tx, stored.vm, stored.vm.target)
  return judge(operation satisfies VmOperation, { protection, test, pointCount: points.length })
}
