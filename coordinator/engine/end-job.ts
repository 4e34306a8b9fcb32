import { errorDocument, HotsiteError } from '#shared/errors/hotsite-error.ts'
import { jobHasEnded, stepHasEnded } from '../domain/jobs.ts'
import { findJob, listSteps, updateJob, updateStep } from '../store/jobs.ts'
import { abandonCommands } from '../store/outbox.ts'
import type { Db } from '../store/schema.ts'
import type { Engine } from './engine.ts'

/**
 * Ends a job that has nothing to undo, in the transaction that accepts what takes its place. Whoever drives it finds it
 * ended: its next write is refused with `state-changed`.
 */
export async function endJobFor(engine: Engine, tx: Db, jobId: string, reason: string): Promise<void> {
  const job = await findJob(tx, jobId)
  if (!job || jobHasEnded(job.state)) return
  const nowMs = engine.clock.now()
  const error = errorDocument(new HotsiteError('job-cancelled', reason))
  for (const step of await listSteps(tx, job))
    if (!stepHasEnded(step.state)) await updateStep(tx, job, step, { state: 'skipped', nowMs })
  await abandonCommands(tx, { vaultId: job.vaultId, idPrefix: `${jobId}:`, nowMs })
  await updateJob(tx, job, { state: 'cancelled', error, waitingFor: null, endedAtMs: nowMs })
  engine.log.info('job ended for another', { jobId, kind: job.kind, vmId: job.vmId, reason })
}
