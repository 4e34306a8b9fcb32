import { z } from 'zod'
import { replicationPolicy } from '#shared/messages/policy.ts'
import { replicationAt } from '../peers.ts'
import { byCommand, jobKind, type StepContext, type StepOutcome, vmOf } from '../step.ts'

const nothing = z.object({})
/** These jobs change nothing before their one command is answered, so there is nothing to undo. */
const noUndo = { undoSteps: [], undo: () => [] } as const

export const pause = jobKind({
  kind: 'pause',
  params: nothing,
  steps: [
    {
      name: 'pause',
      title: 'Pause replication at the source',
      run: (context) => {
        const { source, vmId } = vmOf(context)
        const command = { server: source.agentId, kind: 'replication.pause', request: { vmId } } as const
        return byCommand(context, command, () => ({ kind: 'done', effect: { event: { kind: 'paused' } } }))
      },
    },
  ],
  ...noUndo,
})

export const resume = jobKind({
  kind: 'resume',
  params: nothing,
  steps: [
    {
      name: 'resume',
      title: 'Resume replication at the source',
      run: (context) => {
        const { source, vmId } = vmOf(context)
        const command = { server: source.agentId, kind: 'replication.resume', request: { vmId } } as const
        return byCommand(context, command, () => ({ kind: 'done', effect: { event: { kind: 'resumed' } } }))
      },
    },
  ],
  ...noUndo,
})

export const resync = jobKind({
  kind: 'resync',
  params: nothing,
  steps: [
    {
      name: 'resync',
      title: 'Start a resynchronization at the source',
      run: beginResync,
    },
  ],
  ...noUndo,
})

/** One that waits is begun as it is: its cause and its estimate stand, and nothing is compared twice. */
async function beginResync(context: StepContext): Promise<StepOutcome> {
  const vm = vmOf(context)
  const { source, vmId } = vm
  const waiting = (await replicationAt(context.engine.db, vm, vm.source))?.resync
  if (!waiting) {
    const request = { vmId, cause: 'requested' as const }
    const command = { server: source.agentId, kind: 'replication.resync', request } as const
    return byCommand(context, command, () => ({
      kind: 'done',
      effect: { event: { kind: 'resyncBegan', cause: 'requested' } },
    }))
  }
  const command = {
    server: source.agentId,
    kind: 'replication.approveResync',
    request: { vmId },
    label: 'approve',
  } as const
  return byCommand(context, command, () => ({ kind: 'done', observed: { approved: waiting.cause } }))
}

const policyParams = z.object({ policy: replicationPolicy })
type PolicyParams = z.infer<typeof policyParams>

/** Target first: it must know a new retention before the source sends points by it. */
export const setPolicy = jobKind<PolicyParams>({
  kind: 'setPolicy',
  params: policyParams,
  steps: [
    { name: 'tell-target', title: 'Tell the target agent', run: (context) => tell(context, 'target') },
    { name: 'tell-source', title: 'Tell the source agent', run: (context) => tell(context, 'source') },
  ],
  undoSteps: [
    {
      name: 'tell-target-back',
      title: 'Give the target agent the former policy',
      run: (context) => {
        const { target, vmId, policy } = vmOf(context)
        const command = { server: target.agentId, kind: 'policy.update', request: { vmId, policy } } as const
        return byCommand(context, command, () => ({ kind: 'done' }))
      },
    },
  ],
  undo: () => ['tell-target-back'],
})

function tell(context: StepContext<PolicyParams>, side: 'source' | 'target'): Promise<StepOutcome> {
  const vm = vmOf(context)
  const { policy } = context.params
  const server = vm[side].agentId
  const command = { server, kind: 'policy.update', request: { vmId: vm.vmId, policy } } as const
  return byCommand(context, command, () => ({
    kind: 'done',
    ...(side === 'source' ? { effect: { patch: { policy } } } : {}),
  }))
}
