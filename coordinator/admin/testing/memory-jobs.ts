import { setImmediate as turn } from 'node:timers/promises'
import { errorDocument, HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { JobView } from '../views.ts'
import { sampleJob } from './sample-views.ts'

export type JobEnding = 'succeed' | 'fail' | 'wait' | 'stay'

/** Jobs that run by themselves, one step a turn, to the ending a test asked for. */
export class MemoryJobs {
  readonly all = new Map<string, JobView>()
  /** `wait`: says at its last step that it waits, then goes on; `stay`: runs until cancelled. */
  ending: JobEnding = 'succeed'
  #changed = Promise.withResolvers<void>()
  #clockMs = Date.UTC(2030, 0, 1)

  start(kind: string, vm: string, titles: readonly string[]): JobView {
    const job = sampleJob({
      jobId: `job-${this.all.size + 1}`,
      kind,
      vm,
      createdAtMs: this.#clockMs,
      steps: titles.map((title, index) => ({
        name: `step-${index + 1}`,
        title,
        state: 'pending' as const,
        startedAtMs: null,
        endedAtMs: null,
        observed: null,
      })),
    })
    this.#put(job)
    void this.#run(job.jobId, this.ending)
    return job
  }

  get(jobId: string): JobView {
    const job = this.all.get(jobId)
    if (!job) throw new HotsiteError('not-found', `there is no job ${jobId}`)
    return job
  }

  cancel(jobId: string): JobView {
    return this.#put({ ...this.get(jobId), state: 'cancelled', endedAtMs: this.#clockMs })
  }

  async *watch(jobId: string, signal: AbortSignal): AsyncIterable<JobView> {
    const aborted = new Promise<void>((resolve) =>
      signal.addEventListener('abort', () => resolve(), { once: true }),
    )
    let last: JobView | null = null
    while (!signal.aborted) {
      const changed = this.#changed.promise
      const job = this.get(jobId)
      if (job !== last) yield job
      last = job
      if (job.endedAtMs !== null) return
      if (this.get(jobId) === job) await Promise.race([changed, aborted])
    }
  }

  async #run(jobId: string, ending: JobEnding): Promise<void> {
    const { steps } = this.get(jobId)
    for (const [index] of steps.entries()) {
      await turn()
      if (this.get(jobId).state !== 'running') return
      this.#step(jobId, index, 'running')
      const last = index === steps.length - 1
      if (last && ending === 'stay') return
      await turn()
      if (last && ending === 'wait') {
        this.#wait(jobId, index)
        await turn()
        this.#put({ ...this.get(jobId), state: 'running' })
      }
      this.#step(jobId, index, last && ending === 'fail' ? 'failed' : 'succeeded')
    }
    const failed = ending === 'fail'
    const error = failed ? errorDocument(new HotsiteError('disk-full', 'the target disk is full')) : null
    this.#put({ ...this.get(jobId), state: failed ? 'failed' : 'succeeded', endedAtMs: this.#clockMs, error })
  }

  #wait(jobId: string, at: number): void {
    const job = this.get(jobId)
    const waitingFor = 'host-b is not connected'
    const steps = job.steps.map((step, index) =>
      index === at ? { ...step, observed: { waitingFor } } : step,
    )
    this.#put({ ...job, steps, state: 'waiting' })
  }

  #step(jobId: string, at: number, state: 'running' | 'succeeded' | 'failed'): void {
    this.#clockMs += 1_500
    const job = this.get(jobId)
    const steps = job.steps.map((step, index) => {
      if (index !== at) return step
      return state === 'running'
        ? { ...step, state, startedAtMs: this.#clockMs }
        : { ...step, state, endedAtMs: this.#clockMs }
    })
    this.#put({ ...job, steps })
  }

  #put(job: JobView): JobView {
    this.all.set(job.jobId, job)
    this.#changed.resolve()
    this.#changed = Promise.withResolvers<void>()
    return job
  }
}
