/**
 * Nothing is lost: the VM is seen off at the source, what is left is sent and acknowledged, and the VM starts at the target
 * on exactly that point. Until it was seen running there, every failure leads back: the VM is started at the source again
 * and replication goes on, under the raised epoch if it was raised.
 */
import { z } from 'zod'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { startReplicationRequest } from '../peers.ts'
import {
  byCommand,
  byTidyCommand,
  jobKind,
  observedOf,
  type Step,
  type StepContext,
  type StepOutcome,
  vmOf,
} from '../step.ts'
import {
  absentAt,
  awaitSourceFence,
  defineFailoverVm,
  fenceLifted,
  fenceReplica,
  landedEffect,
  raiseEpoch,
  resetReplicaVm,
  startFailoverVm,
} from './failover-steps.ts'
import { createDisks, createDisksStep, liftFence, overlayOf, stopVm, tidyDisks } from './target-vm.ts'

/** A job of an earlier version did not say so. */
const verify = z.boolean().default(true)
const params = z.object({ verify })
type Params = z.infer<typeof params>
const finalPoint = z.object({ point: z.object({ epoch: z.int(), seq: z.int() }) })

const steps: readonly Step<Params>[] = [
  { name: 'begin', title: 'See that both sites answer', run: begin },
  { name: 'shut-down', title: 'Shut the VM down at the source', run: shutDown },
  { name: 'last-changes', title: 'Send the last changes', run: lastChanges },
  {
    name: 'raise-epoch',
    title: 'Raise the epoch',
    run: (context) => raiseEpoch(context, { fenceSource: false }),
  },
  { name: 'fence-replica', title: 'Close the replica to older epochs', run: fenceReplica },
  {
    name: createDisksStep,
    title: 'Make disks on the last point',
    run: (context) => {
      const { point } = observedOf(context, 'last-changes', finalPoint)
      const overlayId = overlayOf(context.job.jobId)
      return createDisks(context, vmOf(context), {
        overlayId,
        point,
        purpose: 'failover',
        verify: context.params.verify,
      })
    },
  },
  { name: 'define-vm', title: 'Define the VM at the target', run: defineFailoverVm },
  {
    name: 'lift-fence',
    title: 'Let the target start the VM',
    run: (context) => liftFence(context, vmOf(context).target, fenceLifted(vmOf(context).target)),
  },
  {
    name: 'start-vm',
    title: 'Start the VM at the target and see it run',
    run: (context) => {
      const sourceFence = { epoch: vmOf(context).epoch, vmFenced: false, replicationFenced: false }
      return startFailoverVm(context, 'strict', { patch: { sourceFence } })
    },
  },
  {
    name: 'fence-source',
    title: 'Fence the VM at the source',
    run: (context) => awaitSourceFence(context, landedEffect(context, 'planned failover')),
  },
]

const undoSteps: readonly Step<Params>[] = [
  {
    name: 'stop-target',
    title: 'See that the VM is off at the target',
    // Started at the source while it may run at the target, there would be two of it.
    mustHappen: true,
    run: (context) => stopVm(context, vmOf(context).target, vmOf(context).target.fabricVmId),
  },
  { name: 'start-source', title: 'Start the VM at the source again', run: startSource },
  { name: 'resume-replication', title: 'Let replication go on', run: resumeReplication },
  { name: 'reset-vm', title: 'Take the disks from the VM at the target', run: resetReplicaVm },
  {
    name: 'remove-disks',
    title: 'Remove the disks made for the failover',
    run: (context) => tidyDisks(context, vmOf(context), overlayOf(context.job.jobId)),
  },
  { name: 'return', title: 'Return to protection', run: giveUp },
]

export const plannedFailover = jobKind<Params>({
  kind: 'plannedFailover',
  params,
  steps,
  undoSteps,
  undo: (begun) => [
    ...(begun.has('start-vm') ? ['stop-target'] : []),
    ...(begun.has('shut-down') ? ['start-source', 'resume-replication'] : []),
    ...(begun.has('define-vm') ? ['reset-vm'] : []),
    ...(begun.has(createDisksStep) ? ['remove-disks'] : []),
    'return',
  ],
  noReturnFrom: 'start-vm',
  disturbsAt: () => 'shut-down',
})

function begin(context: StepContext<Params>): Promise<StepOutcome> {
  const { source, target } = vmOf(context)
  const reason = absentAt(context, [source, target])
  if (reason) return Promise.resolve({ kind: 'waiting', reason })
  return Promise.resolve({
    kind: 'done',
    effect: { event: { kind: 'failoverBegan', failover: 'planned' } },
  })
}

function shutDown(context: StepContext<Params>): Promise<StepOutcome> {
  const { source } = vmOf(context)
  const request = { fabricVmId: source.fabricVmId, timeoutMs: context.engine.limits.shutDownTimeoutMs }
  const command = { server: source.providerId, kind: 'vm.shutDown', request, attempts: 1 } as const
  return byCommand(context, command, (seen) =>
    seen.power === 'off'
      ? { kind: 'done', observed: { power: seen.power } }
      : {
          kind: 'failed',
          error: new HotsiteError(
            'vm-still-running',
            `${context.job.vmName} was shut down at the source, and runs again`,
          ),
        },
  )
}

function lastChanges(context: StepContext<Params>): Promise<StepOutcome> {
  const { source, vmId } = vmOf(context)
  const command = { server: source.agentId, kind: 'replication.finalDelta', request: { vmId } } as const
  return byCommand(context, command, ({ point, capturedAtMs }) => ({
    kind: 'done',
    observed: { point, capturedAtMs },
  }))
}

/** A VM that cannot be started again is told loudly; the remaining steps of the way back are taken all the same. */
function startSource(context: StepContext<Params>): Promise<StepOutcome> {
  const { source } = vmOf(context)
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

/** With a raised epoch the source needs a new ticket, and hashes are compared before deltas count again. */
async function resumeReplication(context: StepContext<Params>): Promise<StepOutcome> {
  const vm = vmOf(context)
  const { source, target, vmId, epoch } = vm
  if (!epochRaised(context)) {
    const command = { server: source.agentId, kind: 'replication.resume', request: { vmId } } as const
    return byTidyCommand(context, command)
  }
  const start = { from: source, to: target, epoch, cause: 'requested' as const }
  const { request, kept } = await startReplicationRequest(context.engine, vm, start)
  return byCommand(context, { server: source.agentId, kind: 'replication.start', request }, () => ({
    kind: 'done',
    effect: { patch: { ticket: kept } },
  }))
}

const epochRaised = ({ steps: known }: StepContext): boolean =>
  known.some(({ name, state }) => name === 'raise-epoch' && state === 'succeeded')

function giveUp(context: StepContext<Params>): Promise<StepOutcome> {
  const { protection, name } = vmOf(context)
  if (protection.kind !== 'failingOver') return Promise.resolve({ kind: 'skipped' })
  const off = context.steps.some((step) => step.name === 'start-source' && step.state === 'failed')
  const why = context.error?.message ?? 'it was cancelled'
  const message = off
    ? `planned failover of ${name} did not happen (${why}), and the VM could not be started at the source again`
    : `planned failover of ${name} did not happen (${why}); it runs at the source and replication goes on`
  return Promise.resolve({
    kind: 'done',
    effect: {
      event: { kind: 'failoverReturned', resync: epochRaised(context) },
      patch: { overlay: null },
      notices: [{ severity: off ? 'critical' : 'warning', code: 'failover-returned', message }],
    },
  })
}
