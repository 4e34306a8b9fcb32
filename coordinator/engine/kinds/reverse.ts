/**
 * The old source becomes the target: its own disks are the base, hashes are compared, only differences travel. The epoch
 * stays that of the failover. When the first point stands, the two sides change their roles in the VM's row.
 */
import { z } from 'zod'
import { startReplicationRequest } from '../peers.ts'
import { byCommand, byTidyCommand, jobKind, type StepContext, type StepOutcome, vmOf } from '../step.ts'
import { awaitFirstPoint } from './first-copy.ts'
import { defineVm } from './target-vm.ts'

const params = z.object({})
type Params = z.infer<typeof params>

export const reverse = jobKind<Params>({
  kind: 'reverse',
  params,
  steps: [
    {
      name: 'begin',
      title: 'Begin to reverse replication',
      run: () => Promise.resolve({ kind: 'done', effect: { event: { kind: 'reverseBegan' } } }),
    },
    { name: 'check-fence', title: 'See that the VM is fenced at the old source', run: checkFence },
    { name: 'adopt', title: 'Make the old disks the base of the replica', run: adopt },
    { name: 'start-replication', title: 'Start replication where the VM runs', run: startReplication },
    {
      name: 'first-copy',
      title: 'Send what differs',
      run: (context) => {
        const vm = vmOf(context)
        return awaitFirstPoint(context, vm, { from: vm.target, to: vm.source })
      },
    },
    { name: 'define-replica-vm', title: 'Define the VM at the old source', run: defineReplicaVm },
  ],
  undoSteps: [
    {
      name: 'stop-replication',
      title: 'Stop the reversed replication',
      run: (context) => {
        const { target, vmId } = vmOf(context)
        return byTidyCommand(context, { server: target.agentId, kind: 'replication.stop', request: { vmId } })
      },
    },
    {
      name: 'return',
      title: 'Return to the committed failover',
      run: (context) =>
        Promise.resolve(
          vmOf(context).protection.kind === 'reversing'
            ? { kind: 'done', effect: { event: { kind: 'reverseReturned' } } }
            : { kind: 'skipped' },
        ),
    },
  ],
  undo: (begun) => [...(begun.has('start-replication') ? ['stop-replication'] : []), 'return'],
})

function checkFence(context: StepContext<Params>): Promise<StepOutcome> {
  const { engine, job } = context
  const { source, sourceFence } = vmOf(context)
  if (!sourceFence || (sourceFence.vmFenced && sourceFence.replicationFenced))
    return Promise.resolve({ kind: 'done', observed: { fenced: true } })
  for (const [server, what] of [
    [source.providerId, `the provider of ${source.vmmServer}`],
    [source.agentId, `the recovery agent of ${source.host}`],
  ] as const)
    if (!engine.connections.isConnected(job.vaultId, server))
      return Promise.resolve({ kind: 'waiting', reason: `${what} is not connected` })
  return Promise.resolve({ kind: 'waiting', reason: `${source.host} has not confirmed the fence yet` })
}

function adopt(context: StepContext<Params>): Promise<StepOutcome> {
  const { source, target, vmId, epoch, policy } = vmOf(context)
  const { fabricVmId } = source
  const request = { vmId, epoch, fabricVmId, sourceServerId: target.agentId, policy }
  return byCommand(context, { server: source.agentId, kind: 'replica.adopt', request }, () => ({
    kind: 'done',
  }))
}

async function startReplication(context: StepContext<Params>): Promise<StepOutcome> {
  const vm = vmOf(context)
  const start = { from: vm.target, to: vm.source, epoch: vm.epoch, cause: 'reversed' as const }
  const { request, kept } = await startReplicationRequest(context.engine, vm, start)
  return byCommand(context, { server: vm.target.agentId, kind: 'replication.start', request }, () => ({
    kind: 'done',
    effect: { patch: { ticket: kept } },
  }))
}

/** Over the old definition, and still fenced: the fence is lifted only by a failover back. */
function defineReplicaVm(context: StepContext<Params>): Promise<StepOutcome> {
  const vm = vmOf(context)
  const { source: side, target, name } = vm
  const message = `${name} is protected again, in the other direction`
  return defineVm(
    context,
    vm,
    { side, fabricVmId: side.fabricVmId, name, disks: [], nics: side.nics },
    {
      event: { kind: 'ready' },
      patch: {
        source: { ...target, fenced: false },
        target: { ...side, fenced: true },
        direction: vm.direction === 'forward' ? 'reverse' : 'forward',
        sourceFence: null,
        overlay: null,
        protectedAtMs: context.nowMs,
      },
      notices: [{ severity: 'info', code: 'vm-reversed', message }],
    },
  )
}
