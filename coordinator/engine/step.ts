/**
 * A step is asked again and again until it is over: it looks at what is stored (results of its commands, reports, the VM)
 * and says what it found. It keeps nothing in memory, so a restarted coordinator asks the same question and goes on.
 */
import type { z } from 'zod'
import { defined } from '#shared/assert.ts'
import { type ErrorDocument, HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { ServerId } from '#shared/ids.ts'
import type { CommandKind, CommandRequest, CommandResultOf } from '#shared/messages/commands.ts'
import type { VmOperation } from '../domain/allowed-operations.ts'
import type { ProtectedVm } from '../store/documents.ts'
import type { JobRow, StepRow } from '../store/jobs.ts'
import type { Effect } from './apply-effect.ts'
import type { Engine } from './engine.ts'

export type Observed = Readonly<Record<string, unknown>>

export type StepOutcome =
  | { readonly kind: 'done'; readonly observed?: Observed; readonly effect?: Effect }
  | { readonly kind: 'skipped'; readonly observed?: Observed; readonly effect?: Effect }
  /** An agent is at work. */
  | { readonly kind: 'pending'; readonly observed?: Observed }
  /** Nothing happens until the reason is gone: shown, and the job can be cancelled. */
  | { readonly kind: 'waiting'; readonly reason: string }
  | { readonly kind: 'failed'; readonly error: HotsiteError }

export interface CommandSpec<Kind extends CommandKind> {
  readonly server: ServerId
  readonly kind: Kind
  readonly request: CommandRequest<Kind>
  /** Tells several commands of one step apart. */
  readonly label?: string
  /** 1: the first failure counts. Otherwise failures that pass by themselves are tried again, a few times. */
  readonly attempts?: number
}

export type CommandOutcome<Kind extends CommandKind> =
  | { readonly kind: 'done'; readonly result: CommandResultOf<Kind> }
  | { readonly kind: 'failed'; readonly error: HotsiteError }
  | { readonly kind: 'open'; readonly outcome: StepOutcome; readonly connected: boolean }

export interface StepContext<Params = unknown> {
  readonly engine: Engine
  readonly job: JobRow
  readonly params: Params
  /** As stored now; undefined until `protect` has placed it. */
  readonly vm: ProtectedVm | undefined
  readonly steps: readonly StepRow[]
  readonly nowMs: number
  /** How long this process has been asking this step; a restart begins anew, a clock that jumps does not matter. */
  readonly askedForMs: number
  /** The first failure of the job, while it undoes its work. */
  readonly error: ErrorDocument | null
  /** Sends the command, or finds it sent: its id is made of job, step and attempt (I4). */
  command<Kind extends CommandKind>(spec: CommandSpec<Kind>): Promise<CommandOutcome<Kind>>
  /** Stops waiting for the open commands of this step; they are not sent again. */
  abandon(): Promise<void>
}

export interface Step<Params = unknown> {
  readonly name: string
  readonly title: string
  /** Of the undo steps: the next one is dangerous without it, so that it cannot be given up. */
  readonly mustHappen?: true
  run(context: StepContext<Params>): Promise<StepOutcome>
}

export interface JobKind<Params = unknown> {
  readonly kind: VmOperation | 'protect'
  readonly params: z.ZodType<Params>
  readonly steps: readonly Step<Params>[]
  /** Steps of which some are chosen when the job fails or is cancelled. */
  readonly undoSteps: readonly Step<Params>[]
  /** Names of the undo steps, given which forward steps were begun. */
  undo(begun: ReadonlySet<string>): readonly string[]
  /** From this step on the job can only go forward. */
  readonly noReturnFrom?: string
  /**
   * The first step that touches a running VM or starts one. Up to its end an agent that is away is waited for only
   * `absentWaitMs`: the person who asked chose the moment. undefined: it waits for as long as it takes.
   */
  readonly disturbsAt?: (params: Params) => string | undefined
}

/** Erases the parameter type after the schema has been bound to the steps. */
export function jobKind<Params>(kind: JobKind<Params>): JobKind {
  return kind as unknown as JobKind
}

export function vmOf({ vm, job }: StepContext): ProtectedVm {
  return defined(vm, `protected VM ${job.vmId}`)
}

/** What an earlier step of this job observed, checked. */
export function observedOf<Schema extends z.ZodType>(
  { steps, job }: StepContext,
  stepName: string,
  schema: Schema,
): z.output<Schema> {
  const step = steps.find(({ name, state }) => name === stepName && state === 'succeeded')
  return schema.parse(defined(step?.observed, `the result of step ${stepName} of ${job.jobId}`))
}

/** The usual step: one command, and what its result means. */
export async function byCommand<Kind extends CommandKind>(
  context: StepContext,
  spec: CommandSpec<Kind>,
  then: (result: CommandResultOf<Kind>) => StepOutcome | Promise<StepOutcome>,
): Promise<StepOutcome> {
  const outcome = await context.command(spec)
  switch (outcome.kind) {
    case 'done':
      return then(outcome.result)
    case 'failed':
      return { kind: 'failed', error: outcome.error }
    case 'open':
      return outcome.outcome
  }
}

/**
 * For work that must be done in the end but holds nobody up: when the agent is away the command stays in the outbox and
 * the step is over; when the agent refuses, that is recorded and the job goes on.
 */
export async function byTidyCommand<Kind extends CommandKind>(
  context: StepContext,
  spec: CommandSpec<Kind>,
  effect: Effect = {},
): Promise<StepOutcome> {
  const outcome = await context.command({ attempts: 1, ...spec }).catch(serverGone)
  if (outcome.kind === 'done') return { kind: 'done', effect }
  if (outcome.kind === 'failed') {
    const { code, message } = outcome.error
    context.engine.log.warn('tidy command failed', {
      jobId: context.job.jobId,
      command: spec.kind,
      code,
      message,
    })
    return { kind: 'done', observed: { refused: `${code}: ${message}` }, effect }
  }
  const patience = context.engine.limits.tidyWaitMs
  if (outcome.connected && context.askedForMs < patience) return outcome.outcome
  return { kind: 'done', observed: { deferred: `${spec.kind} is delivered when the agent answers` }, effect }
}

/** A server that was removed from the vault will not answer; there is nothing left to tidy there. */
function serverGone(error: unknown): { readonly kind: 'failed'; readonly error: HotsiteError } {
  if (error instanceof HotsiteError && error.code === 'server-removed') return { kind: 'failed', error }
  throw error
}
