/**
 * A job is a list of named steps. Each step's result is stored once, with the state change it causes.
 *
 *   job:   running ⇄ waiting ──▶ succeeded | failed | cancelled
 *   step:  pending ──▶ running ──▶ succeeded | skipped | failed
 *
 * forward: the steps of the kind. undo: after a failure or a cancellation, the steps that lead back; the job keeps the
 * first error and ends failed or cancelled.
 */

export type JobState = 'running' | 'waiting' | 'succeeded' | 'failed' | 'cancelled'
export type StepState = 'pending' | 'running' | 'succeeded' | 'failed' | 'skipped'
export type JobPhase = 'forward' | 'undo'

const jobMoves: Readonly<Record<JobState, readonly JobState[]>> = {
  running: ['running', 'waiting', 'succeeded', 'failed', 'cancelled'],
  waiting: ['running', 'waiting', 'succeeded', 'failed', 'cancelled'],
  succeeded: [],
  failed: [],
  cancelled: [],
}

const stepMoves: Readonly<Record<StepState, readonly StepState[]>> = {
  pending: ['running', 'skipped'],
  running: ['running', 'succeeded', 'failed', 'skipped'],
  succeeded: [],
  failed: [],
  skipped: [],
}

export const jobMayBecome = (from: JobState, to: JobState): boolean => jobMoves[from].includes(to)
export const stepMayBecome = (from: StepState, to: StepState): boolean => stepMoves[from].includes(to)
export const jobHasEnded = (state: JobState): boolean => jobMoves[state].length === 0
export const stepHasEnded = (state: StepState): boolean => stepMoves[state].length === 0

/** How a job ends once there is no step left. */
export function endOfJob(job: { phase: JobPhase; cancelRequested: boolean; failed: boolean }): JobState {
  if (job.phase === 'forward') return 'succeeded'
  return job.cancelRequested && !job.failed ? 'cancelled' : 'failed'
}

/** What happens after a command failed: once more after a pause, or the step has failed. */
export function retryAfterMs(failure: { retryable: boolean; attempt: number }): number | undefined {
  if (!failure.retryable || failure.attempt >= commandAttempts) return undefined
  return retryPausesMs[Math.min(failure.attempt - 1, retryPausesMs.length - 1)]
}

const retryPausesMs = [1_000, 3_000, 10_000] as const
/** Four attempts over some 15 seconds outlive a restart of an agent; a disk that stays full is told after that. */
export const commandAttempts = 4
