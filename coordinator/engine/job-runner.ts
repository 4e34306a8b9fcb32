import type { JobId } from '#shared/ids.ts'
import { listActiveJobs } from '../store/jobs.ts'
import type { Engine } from './engine.ts'
import { runJob } from './run-job.ts'

/**
 * Takes up every job that is not over, the ones of an earlier life first, and lets go of them when `signal` aborts:
 * they go on in the next life.
 */
export async function runJobs(engine: Engine, signal: AbortSignal): Promise<void> {
  const running = new Map<JobId, Promise<void>>()
  while (!signal.aborted) {
    const seen = engine.bus.version
    for (const { jobId } of await listActiveJobs(engine.db)) {
      if (running.has(jobId) || running.size >= engine.limits.maxRunningJobs) continue
      running.set(
        jobId,
        superviseJob(engine, jobId, signal).finally(() => running.delete(jobId)),
      )
    }
    await engine.bus.changedSince(seen, { timeoutMs: engine.limits.jobPollMs, signal })
  }
  await Promise.all(running.values())
}

/** A turn that broke (a full disk, a locked database) is taken again; nothing of it was stored. */
async function superviseJob(engine: Engine, jobId: JobId, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    try {
      await runJob(engine, jobId, signal)
      return
    } catch (error) {
      engine.log.error('job turn broke; it is taken again', { jobId, error })
      await engine.clock.sleep(engine.limits.jobPollMs, signal).catch(() => {})
    }
  }
}
