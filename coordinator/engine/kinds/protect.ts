import { z } from 'zod'
import { startReplicationRequest } from '../peers.ts'
import { byCommand, byTidyCommand, jobKind, type StepContext, type StepOutcome, vmOf } from '../step.ts'
import { awaitFirstPoint } from './first-copy.ts'
import { checkVm, choosePlace, placeParams } from './placement-steps.ts'
import { defineReplicaVm } from './target-vm.ts'

const params = placeParams.extend({
  /** The first copy begins no earlier; null: at once. */
  startAtMs: z.number().nullable().default(null),
})
type Params = z.infer<typeof params>

export const protect = jobKind<Params>({
  kind: 'protect',
  params,
  steps: [
    { name: 'check', title: 'Check that the VM can be protected', run: checkVm },
    {
      name: 'place',
      title: 'Choose the host of the replica',
      run: (context) => choosePlace(context, { kind: 'enabling' }),
    },
    { name: 'prepare-replica', title: 'Prepare the replica at the target', run: prepareReplica },
    { name: 'start-replication', title: 'Start replication at the source', run: startReplication },
    { name: 'first-copy', title: 'Copy the disks for the first time', run: firstCopy },
    {
      name: 'define-replica-vm',
      title: 'Define the VM at the target',
      run: (context) => defineReplicaVm(context),
    },
  ],
  undoSteps: [
    {
      name: 'stop-replication',
      title: 'Stop replication at the source',
      run: (context) => {
        const { source, vmId } = vmOf(context)
        return byTidyCommand(context, { server: source.agentId, kind: 'replication.stop', request: { vmId } })
      },
    },
    {
      name: 'remove-replica',
      title: 'Remove the replica at the target',
      run: (context) => {
        const { target, vmId } = vmOf(context)
        return byTidyCommand(context, { server: target.agentId, kind: 'replica.remove', request: { vmId } })
      },
    },
    {
      name: 'remove-replica-vm',
      title: 'Remove the VM at the target',
      run: (context) => {
        const { target } = vmOf(context)
        const request = { fabricVmId: target.fabricVmId }
        return byTidyCommand(context, { server: target.providerId, kind: 'vm.remove', request })
      },
    },
    {
      name: 'forget',
      title: 'Forget the protection',
      run: ({ vm }) => Promise.resolve(vm ? { kind: 'done', effect: { forget: true } } : { kind: 'skipped' }),
    },
  ],
  undo: (begun) => [
    ...(begun.has('start-replication') ? ['stop-replication'] : []),
    ...(begun.has('prepare-replica') ? ['remove-replica'] : []),
    ...(begun.has('define-replica-vm') ? ['remove-replica-vm'] : []),
    'forget',
  ],
})

function prepareReplica(context: StepContext<Params>): Promise<StepOutcome> {
  const { vmId, epoch, description, source, target, policy } = vmOf(context)
  const request = { vmId, epoch, disks: description.disks, sourceServerId: source.agentId, policy }
  return byCommand(context, { server: target.agentId, kind: 'replica.prepare', request }, () => ({
    kind: 'done',
  }))
}

async function startReplication(context: StepContext<Params>): Promise<StepOutcome> {
  const vm = vmOf(context)
  const { source: from, target: to, epoch } = vm
  const start = { from, to, epoch, cause: 'initial' as const, notBeforeMs: context.params.startAtMs }
  const { request, kept } = await startReplicationRequest(context.engine, vm, start)
  return byCommand(context, { server: from.agentId, kind: 'replication.start', request }, () => ({
    kind: 'done',
    effect: { event: { kind: 'replicationStarted' }, patch: { ticket: kept } },
  }))
}

function firstCopy(context: StepContext<Params>): Promise<StepOutcome> {
  const vm = vmOf(context)
  return awaitFirstPoint(context, vm, { from: vm.source, to: vm.target })
}
