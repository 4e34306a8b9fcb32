/**
 * The one that must work when the source is gone: nothing here waits for the source beyond a bound. The fence of the old
 * source is recorded together with the raised epoch, before the VM starts at the target, and is delivered whenever the
 * source returns (I5).
 */
import { z } from 'zod'
import { byCommand, jobKind, type Step, type StepContext, type StepOutcome, vmOf } from '../step.ts'
import {
  absentAt,
  awaitSourceFence,
  defineFailoverVm,
  fenceLifted,
  fenceReplica,
  landedEffect,
  raiseEpoch,
  startFailoverVm,
} from './failover-steps.ts'
import { createDisks, createDisksStep, liftFence, overlayOf } from './target-vm.ts'

/** A job of an earlier version did not say so. */
const verify = z.boolean().default(true)
const params = z.object({
  point: z.object({ epoch: z.int(), seq: z.int() }).nullable(),
  shutDownSource: z.boolean(),
  verify,
})
type Params = z.infer<typeof params>

const steps: readonly Step<Params>[] = [
  {
    name: 'begin',
    title: 'See that the target answers',
    run: begin,
  },
  { name: 'clear-target', title: 'Remove what an earlier attempt left', run: clearTarget },
  { name: 'shut-down', title: 'Shut the VM down at the source, if it answers', run: shutDown },
  { name: 'last-changes', title: 'Send the last changes, if the source answers', run: lastChanges },
  {
    name: 'raise-epoch',
    title: 'Raise the epoch',
    run: (context) => raiseEpoch(context, { fenceSource: true }),
  },
  { name: 'fence-replica', title: 'Close the replica to older epochs', run: fenceReplica },
  {
    name: createDisksStep,
    title: 'Make disks on the recovery point',
    run: (context) => {
      const overlayId = overlayOf(context.job.jobId)
      const { point, verify } = context.params
      return createDisks(context, vmOf(context), { overlayId, point, purpose: 'failover', verify })
    },
  },
  { name: 'define-vm', title: 'Define the VM at the target', run: defineFailoverVm },
  {
    name: 'fence-source',
    title: 'Fence the VM at the source, if it answers',
    run: (context) => awaitSourceFence(context),
  },
  {
    name: 'lift-fence',
    title: 'Let the target start the VM',
    run: (context) => liftFence(context, vmOf(context).target, fenceLifted(vmOf(context).target)),
  },
  {
    name: 'start-vm',
    title: 'Start the VM at the target and see it run',
    run: (context) => startFailoverVm(context, 'lenient', landedEffect(context, 'unplanned failover')),
  },
]

const undoSteps: readonly Step<Params>[] = [
  { name: 'start-source', title: 'Start the VM at the source again', run: startSource },
  { name: 'return', title: 'Return to protection', run: giveBack },
  { name: 'record', title: 'Keep the failed failover', run: recordFailure },
]

export const unplannedFailover = jobKind<Params>({
  kind: 'unplannedFailover',
  params,
  steps,
  undoSteps,
  // Once the epoch is raised the source is being fenced: the way on is another attempt, not back.
  undo: (begun) => {
    if (begun.has('raise-epoch')) return ['record']
    return [...(begun.has('shut-down') ? ['start-source'] : []), 'return']
  },
  noReturnFrom: 'start-vm',
  // Told that the source is lost, it waits for its target as long as it takes.
  disturbsAt: ({ shutDownSource }) => (shutDownSource ? 'shut-down' : undefined),
})

/** Nothing is shut down or fenced for a target that could not take over. */
function begin(context: StepContext<Params>): Promise<StepOutcome> {
  const reason = absentAt(context, [vmOf(context).target])
  if (reason) return Promise.resolve({ kind: 'waiting', reason })
  const event = { kind: 'failoverBegan', failover: 'unplanned' } as const
  return Promise.resolve({ kind: 'done', effect: { event } })
}

/** From a failover that failed, or a change of point that did: its VM is stopped and its overlay removed. */
async function clearTarget(context: StepContext<Params>): Promise<StepOutcome> {
  const { target, overlay, vmId } = vmOf(context)
  if (!overlay) return { kind: 'skipped' }
  const { fabricVmId } = target
  const stop = { server: target.providerId, kind: 'vm.stop', request: { fabricVmId }, label: 'stop' } as const
  return byCommand(context, stop, () => {
    const request = { vmId, overlayId: overlay }
    const remove = { server: target.agentId, kind: 'overlay.remove', request, label: 'remove' } as const
    return byCommand(context, remove, () => ({ kind: 'done', effect: { patch: { overlay: null } } }))
  })
}

async function shutDown(context: StepContext<Params>): Promise<StepOutcome> {
  const { source } = vmOf(context)
  if (!context.params.shutDownSource) return { kind: 'skipped' }
  const request = { fabricVmId: source.fabricVmId, timeoutMs: context.engine.limits.bestEffortMs }
  const command = { server: source.providerId, kind: 'vm.shutDown', request, attempts: 1 } as const
  return asFarAsItGoes(context, await context.command(command), (seen) => ({ power: seen.power }))
}

/** Only of a VM that is off: a final delta of a running one would promise what it cannot keep. */
async function lastChanges(context: StepContext<Params>): Promise<StepOutcome> {
  const { source, vmId } = vmOf(context)
  const wasShutDown = context.steps.some(({ name, state }) => name === 'shut-down' && state === 'succeeded')
  if (!wasShutDown) return { kind: 'skipped' }
  const command = {
    server: source.agentId,
    kind: 'replication.finalDelta',
    request: { vmId },
    attempts: 1,
  } as const
  return asFarAsItGoes(context, await context.command(command), ({ point }) => ({ point }))
}

async function asFarAsItGoes<Result>(
  context: StepContext<Params>,
  outcome:
    | { readonly kind: 'done'; readonly result: Result }
    | { readonly kind: 'failed'; readonly error: Error }
    | { readonly kind: 'open'; readonly connected: boolean; readonly outcome: StepOutcome },
  observed: (result: Result) => Readonly<Record<string, unknown>>,
): Promise<StepOutcome> {
  switch (outcome.kind) {
    case 'done':
      return { kind: 'done', observed: observed(outcome.result) }
    case 'failed':
      return { kind: 'skipped', observed: { reason: outcome.error.message } }
    case 'open':
      if (outcome.connected && context.askedForMs < context.engine.limits.bestEffortMs) return outcome.outcome
      await context.abandon()
      return {
        kind: 'skipped',
        observed: { reason: outcome.connected ? 'no answer in time' : 'the source is not connected' },
      }
  }
}

function startSource(context: StepContext<Params>): Promise<StepOutcome> {
  const { source } = vmOf(context)
  const wasShutDown = context.steps.some(({ name, state }) => name === 'shut-down' && state === 'succeeded')
  if (!wasShutDown) return Promise.resolve({ kind: 'skipped' })
  const request = {
    fabricVmId: source.fabricVmId,
    heartbeatTimeoutMs: context.engine.limits.heartbeatTimeoutMs,
  }
  return byCommand(
    context,
    { server: source.providerId, kind: 'vm.start', request, attempts: 2 },
    (seen) => ({
      kind: 'done',
      observed: { power: seen.power },
    }),
  )
}

function giveBack(context: StepContext<Params>): Promise<StepOutcome> {
  const { protection } = vmOf(context)
  if (protection.kind !== 'failingOver') return Promise.resolve({ kind: 'skipped' })
  return protection.before
    ? Promise.resolve({ kind: 'done', effect: { event: { kind: 'failoverReturned', resync: false } } })
    : recordFailure(context)
}

export function recordFailure(context: StepContext): Promise<StepOutcome> {
  const { protection, name } = vmOf(context)
  if (protection.kind !== 'failingOver') return Promise.resolve({ kind: 'skipped' })
  const reason = context.error?.message ?? 'it was cancelled'
  const message = `failover of ${name} stopped at ${protection.step}: ${reason}. Start it again with another point`
  return Promise.resolve({
    kind: 'done',
    effect: {
      event: { kind: 'failoverFailed', reason },
      notices: [{ severity: 'critical', code: 'failover-failed', message }],
    },
  })
}
