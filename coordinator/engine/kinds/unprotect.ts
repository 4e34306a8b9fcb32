import { z } from 'zod'
import { byTidyCommand, jobKind, type StepContext, type StepOutcome, vmOf } from '../step.ts'

const params = z.object({ keepReplica: z.boolean() })
type Params = z.infer<typeof params>

/**
 * A source or target that is gone for good must not keep the VM protected for ever: what cannot be delivered now stays
 * in the outbox, and the VM is forgotten.
 */
export const unprotect = jobKind<Params>({
  kind: 'unprotect',
  params,
  steps: [
    { name: 'begin', title: 'Begin to remove the protection', run: begin },
    { name: 'stop-replication', title: 'Stop replication at the source', run: stopReplication },
    { name: 'lift-fence', title: 'Let the source start the VM again', run: liftSourceFence },
    { name: 'remove-replica-vm', title: 'Remove the VM at the target', run: removeReplicaVm },
    { name: 'remove-replica', title: 'Remove the replica', run: removeReplica },
    {
      name: 'forget',
      title: 'Forget the protection',
      run: (context) => {
        const { name } = vmOf(context)
        const notice = {
          severity: 'info' as const,
          code: 'vm-unprotected',
          message: `${name} is no longer protected`,
        }
        return Promise.resolve({ kind: 'done', effect: { forget: true, notices: [notice] } })
      },
    },
  ],
  undoSteps: [],
  undo: () => [],
  noReturnFrom: 'stop-replication',
})

function begin(): Promise<StepOutcome> {
  return Promise.resolve({ kind: 'done', effect: { event: { kind: 'disableBegan' } } })
}

/** After a committed failover the VM runs on the replica: it and its VM stay, whatever was asked. */
function runsOnReplica(context: StepContext<Params>): boolean {
  const { protection } = vmOf(context)
  return protection.kind === 'disabling' && protection.from === 'committed'
}

function stopReplication(context: StepContext<Params>): Promise<StepOutcome> {
  const { source, vmId } = vmOf(context)
  return byTidyCommand(context, { server: source.agentId, kind: 'replication.stop', request: { vmId } })
}

/** Only after a failover that failed: the VM runs nowhere, so it may run at the source again. */
function liftSourceFence(context: StepContext<Params>): Promise<StepOutcome> {
  const { source, sourceFence } = vmOf(context)
  if (!sourceFence || runsOnReplica(context)) return Promise.resolve({ kind: 'skipped' })
  const request = { fabricVmId: source.fabricVmId }
  return byTidyCommand(
    context,
    { server: source.providerId, kind: 'vm.unfence', request },
    { patch: { sourceFence: null } },
  )
}

function removeReplicaVm(context: StepContext<Params>): Promise<StepOutcome> {
  const { target } = vmOf(context)
  if (runsOnReplica(context))
    return Promise.resolve({ kind: 'skipped', observed: { kept: 'the VM runs there' } })
  const request = { fabricVmId: target.fabricVmId }
  return byTidyCommand(context, { server: target.providerId, kind: 'vm.remove', request })
}

function removeReplica(context: StepContext<Params>): Promise<StepOutcome> {
  const { target, vmId } = vmOf(context)
  if (context.params.keepReplica) return Promise.resolve({ kind: 'skipped', observed: { kept: 'as asked' } })
  if (runsOnReplica(context))
    return Promise.resolve({ kind: 'skipped', observed: { kept: 'the VM runs on it' } })
  return byTidyCommand(context, { server: target.agentId, kind: 'replica.remove', request: { vmId } })
}
