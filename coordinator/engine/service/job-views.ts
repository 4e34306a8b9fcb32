import type { JobView } from '../../admin/views.ts'
import { type JobRow, listSteps } from '../../store/jobs.ts'
import type { Db } from '../../store/schema.ts'

/** Undo steps follow the forward ones, as they ran. */
export async function jobView(db: Db, job: JobRow): Promise<JobView> {
  const steps = await listSteps(db, job)
  return {
    jobId: job.jobId,
    kind: job.kind,
    vm: job.vmName,
    state: job.state,
    createdAtMs: job.createdAtMs,
    endedAtMs: job.endedAtMs,
    steps: steps.map(({ phase, name, title, state, startedAtMs, endedAtMs, observed }) => ({
      name: phase === 'undo' ? `undo:${name}` : name,
      title,
      state,
      startedAtMs,
      endedAtMs,
      observed: observed === null ? null : { ...observed },
    })),
    error: job.error && { ...job.error, details: { ...job.error.details } },
  }
}
