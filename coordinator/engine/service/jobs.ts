import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { CoordinatorService } from '../../admin/service.ts'
import type { JobView } from '../../admin/views.ts'
import { stepHasEnded } from '../../domain/jobs.ts'
import { findJob, type JobRow, listJobs, listSteps, type StepRow, updateJob } from '../../store/jobs.ts'
import { findPicture } from '../../store/pictures.ts'
import type { Engine } from '../engine.ts'
import { jobKindOf } from '../kinds/job-kinds.ts'
import { mayStillReturn } from '../run-job.ts'
import { jobView } from './job-views.ts'
import { resolveJob } from './resolve.ts'

type JobService = Pick<
  CoordinatorService,
  'listJobs' | 'showJob' | 'showJobPicture' | 'watchJob' | 'cancelJob'
>

export function jobService(engine: Engine): JobService {
  const { db } = engine
  return {
    async listJobs({ limit }) {
      const jobs = await listJobs(db, limit)
      return Promise.all(jobs.map((job) => jobView(db, job)))
    },
    showJob: async (id) => jobView(db, await resolveJob(db, id)),
    async showJobPicture(id) {
      const job = await resolveJob(db, id)
      const picture = await findPicture(db, job)
      if (!picture) throw new HotsiteError('picture-unknown', `job ${id} has no picture`)
      const { takenAtMs, png } = picture
      return { job: job.jobId, takenAtMs, pngBase64: Buffer.from(png).toString('base64') }
    },
    watchJob: (id, signal) => watch(engine, id, signal),
    async cancelJob(id) {
      const job = await resolveJob(db, id)
      await db.transaction().execute(async (tx) => {
        const now = (await findJob(tx, job.jobId)) ?? job
        if (now.endedAtMs !== null)
          throw new HotsiteError('job-not-cancellable', `job ${id} has ${now.state} already`)
        const steps = await listSteps(tx, now)
        const step = steps.find(({ phase, state }) => phase === now.phase && !stepHasEnded(state))
        if (now.phase === 'undo') return updateJob(tx, now, skipOf(now, step))
        if (step && !mayStillReturn(jobKindOf(now.kind), step))
          throw new HotsiteError('job-not-cancellable', `job ${id} is at "${step.title}" and can only go on`)
        await updateJob(tx, now, { cancelRequested: true })
      })
      engine.bus.notify()
      return jobView(db, await resolveJob(db, id))
    },
  }
}

/** A site that died while a job was being undone must not hold the VM: the step that waits for it can be given up. */
function skipOf(job: JobRow, step: StepRow | undefined): { skipRequested: true } {
  const mustHappen = jobKindOf(job.kind).undoSteps.find(({ name }) => name === step?.name)?.mustHappen
  if (job.state === 'waiting' && !mustHappen) return { skipRequested: true }
  const why = mustHappen ? `"${step?.title}" must happen before anything else` : 'it is being undone already'
  throw new HotsiteError('job-not-cancellable', `job ${job.jobId}: ${why}`)
}

/** The job as it is, then again after every change, until it has ended. */
async function* watch(engine: Engine, id: string, signal: AbortSignal): AsyncGenerator<JobView> {
  let last = ''
  while (!signal.aborted) {
    const seen = engine.bus.version
    const view = await jobView(engine.db, await resolveJob(engine.db, id))
    const text = JSON.stringify(view)
    if (text !== last) yield view
    last = text
    if (view.endedAtMs !== null) return
    await engine.bus.changedSince(seen, { timeoutMs: engine.limits.jobPollMs, signal })
  }
}
