/**
 * Drives one job. Every turn reads the job, its steps and the VM, asks the step in turn, and stores the answer with its
 * effect in one transaction. Killed anywhere, the next turn starts from what is stored.
 */
import { defined } from '#shared/assert.ts'
import { errorDocument, HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { JobId } from '#shared/ids.ts'
import { endOfJob, stepHasEnded } from '../domain/jobs.ts'
import { describeMs } from '../domain/quantities.ts'
import {
  appendSteps,
  findJob,
  type JobChange,
  type JobRow,
  listSteps,
  type StepRow,
  updateJob,
  updateStep,
} from '../store/jobs.ts'
import { abandonCommands } from '../store/outbox.ts'
import { findProtectedVm } from '../store/protected-vms.ts'
import type { Db } from '../store/schema.ts'
import { applyEffect } from './apply-effect.ts'
import type { Engine } from './engine.ts'
import { jobKindOf } from './kinds/job-kinds.ts'
import type { JobKind, StepContext, StepOutcome } from './step.ts'
import { ensureCommand } from './step-commands.ts'

export async function runJob(engine: Engine, jobId: JobId, signal: AbortSignal): Promise<void> {
  const asked: Asked = { key: '', sinceMs: 0, waitingSinceMs: null }
  while (!signal.aborted) {
    const seen = engine.bus.version
    const moved = await takeTurn(engine, jobId, asked)
    if (moved === 'ended') return
    if (moved === 'waits') await engine.bus.changedSince(seen, { timeoutMs: engine.limits.jobPollMs, signal })
  }
}

interface Asked {
  key: string
  sinceMs: number
  /** Monotonic; null: it does not wait. */
  waitingSinceMs: number | null
}

async function takeTurn(engine: Engine, jobId: JobId, asked: Asked): Promise<'moved' | 'waits' | 'ended'> {
  const job = defined(await findJob(engine.db, jobId), `job ${jobId}`)
  if (job.endedAtMs !== null) return 'ended'
  const kind = jobKindOf(job.kind)
  const steps = await listSteps(engine.db, job)
  const step = steps.find(({ phase, state }) => phase === job.phase && !stepHasEnded(state))
  if (!step) {
    await endJob(engine, job, steps)
    return 'ended'
  }
  if (job.cancelRequested && job.phase === 'forward' && mayStillReturn(kind, step)) {
    const error = new HotsiteError('job-cancelled', `the job was cancelled at "${step.title}"`)
    await turnBack(engine, { job, kind, steps, step }, error)
    return 'moved'
  }
  const begun = step.state === 'pending' ? await beginStep(engine, job, step) : step
  const key = `${step.position}`
  if (asked.key !== key)
    Object.assign(asked, { key, sinceMs: engine.clock.monotonicMs(), waitingSinceMs: null })
  const turn = { job, kind, steps, step: begun }
  const tooLate = waitedTooLong(engine, turn, asked)
  if (tooLate) {
    await turnBack(engine, turn, tooLate)
    return 'moved'
  }
  const outcome = await ask(engine, turn, asked)
  asked.waitingSinceMs =
    outcome.kind === 'waiting' ? (asked.waitingSinceMs ?? engine.clock.monotonicMs()) : null
  return settle(engine, turn, outcome)
}

/**
 * Asked before the step is: an agent that is back after hours, or a coordinator that is, must not disturb the VM then.
 * The stored time outlives a restart; the monotonic one does not mind a clock that was set back.
 */
function waitedTooLong(engine: Engine, { job, kind, step }: Turn, asked: Asked): HotsiteError | undefined {
  const last = kind.disturbsAt?.(kind.params.parse(JSON.parse(job.params)))
  if (last === undefined || job.phase !== 'forward' || job.state !== 'waiting') return undefined
  const names = kind.steps.map(({ name }) => name)
  if (names.indexOf(step.name) > names.indexOf(last)) return undefined
  const { clock, limits } = engine
  const waitedMs = Math.max(
    asked.waitingSinceMs === null ? 0 : clock.monotonicMs() - asked.waitingSinceMs,
    clock.now() - (storedWaitSince(step) ?? clock.now()),
  )
  if (waitedMs < limits.absentWaitMs) return undefined
  return new HotsiteError(
    'agent-absent',
    `${job.waitingFor ?? 'an agent is not connected'}, and it was waited for ${describeMs(waitedMs)} at "${step.title}"`,
  )
}

function storedWaitSince({ observed }: StepRow): number | undefined {
  const sinceMs = observed?.['waitingSinceMs']
  return typeof sinceMs === 'number' ? sinceMs : undefined
}

interface Turn {
  readonly job: JobRow
  readonly kind: JobKind
  readonly steps: readonly StepRow[]
  readonly step: StepRow
}

/** True while cancelling leads back: before the step from which the job can only go forward. */
export function mayStillReturn(kind: JobKind, step: Pick<StepRow, 'name'>): boolean {
  if (kind.noReturnFrom === undefined) return true
  const names = kind.steps.map(({ name }) => name)
  return names.indexOf(step.name) < names.indexOf(kind.noReturnFrom)
}

async function beginStep(engine: Engine, job: JobRow, step: StepRow): Promise<StepRow> {
  const nowMs = engine.clock.now()
  await engine.db.transaction().execute(async (tx) => {
    await updateStep(tx, job, step, { state: 'running', nowMs })
    const stored = await findProtectedVm(tx, job.vaultId, job.vmId)
    if (stored?.vm.protection.kind === 'failingOver' && step.phase === 'forward')
      await applyEffect(engine, tx, job, { event: { kind: 'failoverStep', step: step.name } })
  })
  engine.crashPoint('step-begun')
  return { ...step, state: 'running', startedAtMs: nowMs }
}

async function ask(engine: Engine, turn: Turn, asked: Asked): Promise<StepOutcome> {
  const { job, kind, steps, step } = turn
  const known = job.phase === 'forward' ? kind.steps : kind.undoSteps
  const stored = await findProtectedVm(engine.db, job.vaultId, job.vmId)
  const context: StepContext = {
    engine,
    job,
    params: kind.params.parse(JSON.parse(job.params)),
    vm: stored?.vm,
    steps,
    nowMs: engine.clock.now(),
    askedForMs: engine.clock.monotonicMs() - asked.sinceMs,
    error: job.error,
    command: (spec) => ensureCommand({ engine, job, step }, spec),
    abandon: () => abandonOf(engine, engine.db, { job, step }),
  }
  try {
    const code = defined(
      known.find(({ name }) => name === step.name),
      `step ${step.name} of ${job.kind}`,
    )
    return await code.run(context)
  } catch (error) {
    if (error instanceof HotsiteError) return { kind: 'failed', error }
    engine.log.error('job step broke', { jobId: job.jobId, step: step.name, error })
    const message = `step "${step.title}" broke: ${error instanceof Error ? error.message : String(error)}`
    return { kind: 'failed', error: new HotsiteError('internal', message, { cause: error }) }
  }
}

async function settle(engine: Engine, turn: Turn, outcome: StepOutcome): Promise<'moved' | 'waits'> {
  const { job, step } = turn
  const nowMs = engine.clock.now()
  switch (outcome.kind) {
    case 'pending':
      await note(engine, job, step, { state: 'running', waitingFor: null }, outcome.observed)
      return 'waits'
    case 'waiting':
      if (job.phase === 'undo' && job.skipRequested) {
        await turnBack(engine, turn, new HotsiteError('job-cancelled', `given up: ${outcome.reason}`))
        return 'moved'
      }
      await note(
        engine,
        job,
        step,
        { state: 'waiting', waitingFor: outcome.reason },
        { waitingFor: outcome.reason, waitingSinceMs: storedWaitSince(step) ?? nowMs },
      )
      return 'waits'
    case 'done':
    case 'skipped':
      try {
        engine.crashPoint('step-observed')
        await engine.db.transaction().execute(async (tx) => {
          await updateStep(tx, job, step, {
            state: outcome.kind === 'done' ? 'succeeded' : 'skipped',
            nowMs,
            observed: outcome.observed ?? null,
          })
          await updateJob(tx, job, { state: 'running', waitingFor: null })
          if (outcome.effect) await applyEffect(engine, tx, job, outcome.effect)
        })
        engine.crashPoint('step-stored')
      } catch (error) {
        if (!(error instanceof HotsiteError) || error.code !== 'state-changed') throw error
        await turnBack(engine, turn, error)
      }
      engine.bus.notify()
      return 'moved'
    case 'failed':
      await turnBack(engine, turn, outcome.error)
      return 'moved'
  }
}

/** Progress of a step that goes on, written only when it changed. */
async function note(
  engine: Engine,
  job: JobRow,
  step: StepRow,
  change: JobChange,
  observed: Readonly<Record<string, unknown>> = {},
): Promise<void> {
  const sameJob = job.state === change.state && job.waitingFor === change.waitingFor
  const sameStep = JSON.stringify(step.observed ?? {}) === JSON.stringify(observed)
  if (sameJob && sameStep) return
  await engine.db.transaction().execute(async (tx) => {
    if (!sameJob) await updateJob(tx, job, change)
    if (!sameStep) await updateStep(tx, job, step, { state: 'running', nowMs: engine.clock.now(), observed })
  })
  if (change.waitingFor)
    engine.log.info('job waits', { jobId: job.jobId, step: step.name, reason: change.waitingFor })
}

/**
 * The step failed. Forward: the job keeps the error and begins to undo. While undoing: the failure is recorded and the
 * next undo step is tried, because stopping half way would leave more behind.
 */
async function turnBack(engine: Engine, turn: Turn, error: HotsiteError): Promise<void> {
  const { job, kind, steps, step } = turn
  const nowMs = engine.clock.now()
  const document = errorDocument(error)
  engine.log.warn('job step failed', {
    jobId: job.jobId,
    kind: job.kind,
    step: step.name,
    phase: job.phase,
    error,
  })
  await engine.db.transaction().execute(async (tx) => {
    await updateStep(tx, job, step, { state: 'failed', nowMs, observed: { error: document } })
    await abandonOf(engine, tx, { job, step })
    if (job.phase === 'undo') {
      const skipped = job.skipRequested ? { skipRequested: false } : {}
      await updateJob(tx, job, { state: 'running', waitingFor: null, ...skipped })
      return
    }
    for (const later of steps.filter(({ position }) => position > step.position))
      await updateStep(tx, job, later, { state: 'skipped', nowMs })
    const begun = new Set(steps.filter(({ state }) => state !== 'pending').map(({ name }) => name))
    const names = kind.undo(begun.add(step.name))
    const chosen = kind.undoSteps.filter(({ name }) => names.includes(name))
    await appendSteps(tx, job, { phase: 'undo', from: steps.length, steps: chosen })
    await updateJob(tx, job, { state: 'running', phase: 'undo', error: document, waitingFor: null })
  })
  engine.crashPoint('turned-back')
  engine.bus.notify()
}

async function abandonOf(
  engine: Engine,
  db: Db,
  { job, step }: { job: JobRow; step: StepRow },
): Promise<void> {
  const undo = step.phase === 'undo' ? 'undo.' : ''
  const nowMs = engine.clock.now()
  for (const end of [':', '.']) {
    const idPrefix = `${job.jobId}:${undo}${step.name}${end}`
    await abandonCommands(db, { vaultId: job.vaultId, idPrefix, nowMs })
  }
}

async function endJob(engine: Engine, job: JobRow, steps: readonly StepRow[]): Promise<void> {
  const undoFailed = steps.some(({ phase, state }) => phase === 'undo' && state === 'failed')
  const failed = undoFailed || (job.error !== null && job.error.code !== 'job-cancelled')
  const state = endOfJob({ phase: job.phase, cancelRequested: job.cancelRequested, failed })
  await updateJob(engine.db, job, { state, endedAtMs: engine.clock.now(), waitingFor: null })
  engine.log.info('job ended', { jobId: job.jobId, kind: job.kind, vmId: job.vmId, state })
  engine.bus.notify()
}
