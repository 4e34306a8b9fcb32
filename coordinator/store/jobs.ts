import type { Selectable } from 'kysely'
import { z } from 'zod'
import { assert } from '#shared/assert.ts'
import { type ErrorDocument, HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { JobId, VaultId, VmId } from '#shared/ids.ts'
import { type JobPhase, type JobState, jobMayBecome, type StepState, stepMayBecome } from '../domain/jobs.ts'
import { readDocument } from './documents.ts'
import type { Database, Db } from './schema.ts'

export interface JobRow {
  readonly vaultId: VaultId
  readonly jobId: JobId
  readonly kind: string
  readonly vmId: VmId
  readonly vmName: string
  /** Canonical JSON. */
  readonly params: string
  readonly state: JobState
  readonly phase: JobPhase
  readonly error: ErrorDocument | null
  readonly waitingFor: string | null
  readonly cancelRequested: boolean
  /** Cancelled once more while it undoes its work: the step it waits in is given up. */
  readonly skipRequested: boolean
  readonly createdAtMs: number
  readonly endedAtMs: number | null
}

export interface StepRow {
  readonly position: number
  readonly phase: JobPhase
  readonly name: string
  readonly title: string
  readonly state: StepState
  readonly startedAtMs: number | null
  readonly endedAtMs: number | null
  readonly observed: Readonly<Record<string, unknown>> | null
}

export interface NewStep {
  readonly name: string
  readonly title: string
}

const observedDocument = z.record(z.string(), z.unknown())
const errorDocument = z.object({
  code: z.string(),
  message: z.string(),
  possibleCause: z.string(),
  recommendedAction: z.string(),
  retryable: z.boolean(),
  details: z.record(z.string(), z.unknown()),
}) as unknown as z.ZodType<ErrorDocument>

const fromRow = (row: Selectable<Database['jobs']>): JobRow => ({
  vaultId: row.vault_id as VaultId,
  jobId: row.job_id as JobId,
  kind: row.kind,
  vmId: row.vm_id as VmId,
  vmName: row.vm_name,
  params: row.params,
  state: row.state,
  phase: row.phase,
  error: row.error === null ? null : readDocument(errorDocument, row.error, `job ${row.job_id}`),
  waitingFor: row.waiting_for,
  cancelRequested: row.cancel_requested >= 1,
  skipRequested: row.cancel_requested === 2,
  createdAtMs: row.created_at_ms,
  endedAtMs: row.ended_at_ms,
})

const activeStates: readonly JobState[] = ['running', 'waiting']

export async function listJobs(db: Db, limit: number): Promise<readonly JobRow[]> {
  const rows = await db.selectFrom('jobs').selectAll().orderBy('sequence', 'desc').limit(limit).execute()
  return rows.map(fromRow)
}

export async function listActiveJobs(db: Db): Promise<readonly JobRow[]> {
  const query = db.selectFrom('jobs').selectAll().where('state', 'in', activeStates)
  return (await query.orderBy('sequence').execute()).map(fromRow)
}

export async function findJob(db: Db, jobId: string): Promise<JobRow | undefined> {
  const row = await db.selectFrom('jobs').selectAll().where('job_id', '=', jobId).executeTakeFirst()
  return row && fromRow(row)
}

export async function findActiveJob(db: Db, vaultId: VaultId, vmId: VmId): Promise<JobRow | undefined> {
  const row = await db
    .selectFrom('jobs')
    .selectAll()
    .where('vault_id', '=', vaultId)
    .where('vm_id', '=', vmId)
    .where('state', 'in', activeStates)
    .executeTakeFirst()
  return row && fromRow(row)
}

export async function listSteps(db: Db, { vaultId, jobId }: JobRow): Promise<readonly StepRow[]> {
  const rows = await db
    .selectFrom('job_steps')
    .selectAll()
    .where('vault_id', '=', vaultId)
    .where('job_id', '=', jobId)
    .orderBy('position')
    .execute()
  return rows.map((row) => ({
    position: row.position,
    phase: row.phase,
    name: row.name,
    title: row.title,
    state: row.state,
    startedAtMs: row.started_at_ms,
    endedAtMs: row.ended_at_ms,
    observed:
      row.observed === null ? null : readDocument(observedDocument, row.observed, `a step of ${jobId}`),
  }))
}

export type NewJob = Pick<JobRow, 'vaultId' | 'jobId' | 'kind' | 'vmId' | 'vmName' | 'params' | 'createdAtMs'>

export async function insertJob(db: Db, job: NewJob, steps: readonly NewStep[]): Promise<void> {
  await db
    .insertInto('jobs')
    .values({
      vault_id: job.vaultId,
      job_id: job.jobId,
      kind: job.kind,
      vm_id: job.vmId,
      vm_name: job.vmName,
      params: job.params,
      state: 'running',
      phase: 'forward',
      error: null,
      waiting_for: null,
      created_at_ms: job.createdAtMs,
      ended_at_ms: null,
    })
    .execute()
  await appendSteps(db, job, { phase: 'forward', from: 0, steps })
}

export async function appendSteps(
  db: Db,
  { vaultId, jobId }: Pick<JobRow, 'vaultId' | 'jobId'>,
  added: { readonly phase: JobPhase; readonly from: number; readonly steps: readonly NewStep[] },
): Promise<void> {
  if (added.steps.length === 0) return
  await db
    .insertInto('job_steps')
    .values(
      added.steps.map(({ name, title }, index) => ({
        vault_id: vaultId,
        job_id: jobId,
        position: added.from + index,
        phase: added.phase,
        name,
        title,
        state: 'pending' as const,
        started_at_ms: null,
        ended_at_ms: null,
        observed: null,
      })),
    )
    .execute()
}

export interface StepChange {
  readonly state: StepState
  readonly nowMs: number
  readonly observed?: Readonly<Record<string, unknown>> | null
}

export async function updateStep(db: Db, job: JobRow, step: StepRow, change: StepChange): Promise<void> {
  assert(stepMayBecome(step.state, change.state), `step ${step.name} from ${step.state} to ${change.state}`)
  const ended = change.state === 'running' ? {} : { ended_at_ms: change.nowMs }
  await db
    .updateTable('job_steps')
    .set({
      state: change.state,
      started_at_ms: step.startedAtMs ?? change.nowMs,
      ...ended,
      ...(change.observed === undefined
        ? {}
        : { observed: change.observed === null ? null : JSON.stringify(change.observed) }),
    })
    .where('vault_id', '=', job.vaultId)
    .where('job_id', '=', job.jobId)
    .where('position', '=', step.position)
    .execute()
}

export interface JobChange {
  readonly state?: JobState
  readonly phase?: JobPhase
  readonly error?: ErrorDocument
  readonly waitingFor?: string | null
  readonly cancelRequested?: true
  readonly skipRequested?: boolean
  readonly endedAtMs?: number
}

/** Throws `state-changed` for a job that has ended. */
export async function updateJob(db: Db, job: JobRow, change: JobChange): Promise<void> {
  if (change.state)
    assert(jobMayBecome(job.state, change.state), `job ${job.jobId} from ${job.state} to ${change.state}`)
  const { numUpdatedRows } = await db
    .updateTable('jobs')
    .set({
      ...(change.state ? { state: change.state } : {}),
      ...(change.phase ? { phase: change.phase } : {}),
      ...(change.error ? { error: JSON.stringify(change.error) } : {}),
      ...(change.waitingFor === undefined ? {} : { waiting_for: change.waitingFor }),
      ...(change.cancelRequested ? { cancel_requested: 1 } : {}),
      ...(change.skipRequested === undefined ? {} : { cancel_requested: change.skipRequested ? 2 : 1 }),
      ...(change.endedAtMs === undefined ? {} : { ended_at_ms: change.endedAtMs }),
    })
    .where('vault_id', '=', job.vaultId)
    .where('job_id', '=', job.jobId)
    .where('ended_at_ms', 'is', null)
    .executeTakeFirst()
  if (numUpdatedRows !== 1n) throw new HotsiteError('state-changed', `job ${job.jobId} has ended meanwhile`)
}

/** Newest `keep` stay, with their steps, and every job that goes on. */
export async function pruneJobs(db: Db, keep: number): Promise<void> {
  const oldest = await db
    .selectFrom('jobs')
    .select('sequence')
    .orderBy('sequence', 'desc')
    .offset(keep)
    .limit(1)
    .executeTakeFirst()
  if (!oldest) return
  const isOld = db
    .selectFrom('jobs')
    .select('job_id')
    .where('sequence', '<=', oldest.sequence)
    .where('ended_at_ms', 'is not', null)
  await db.deleteFrom('job_steps').where('job_id', 'in', isOld).execute()
  await db
    .deleteFrom('jobs')
    .where('sequence', '<=', oldest.sequence)
    .where('ended_at_ms', 'is not', null)
    .execute()
}
