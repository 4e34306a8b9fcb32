import { z } from 'zod'
import { defined } from '#shared/assert.ts'
import { byCommand, jobKind, type StepContext, type StepOutcome, vmOf } from '../step.ts'
import { defineFailoverVm, landedEffect, startFailoverVm } from './failover-steps.ts'
import { createDisks, createDisksStep, overlayOf, stopVm } from './target-vm.ts'
import { recordFailure } from './unplanned-failover.ts'

const params = z.object({ point: z.object({ epoch: z.int(), seq: z.int() }).nullable() })
type Params = z.infer<typeof params>

/** What the VM wrote since the failover is given up: that is what choosing another point means. */
export const changePoint = jobKind<Params>({
  kind: 'changePoint',
  params,
  steps: [
    {
      name: 'begin',
      title: 'Begin to change the point',
      run: () =>
        Promise.resolve({
          kind: 'done',
          effect: { event: { kind: 'failoverBegan', failover: 'changePoint' } },
        }),
    },
    {
      name: 'stop-vm',
      title: 'Power the VM off',
      run: (context) => stopVm(context, vmOf(context).target, vmOf(context).target.fabricVmId),
    },
    { name: 'remove-disks', title: 'Remove the disks of the other point', run: swapOverlay },
    {
      name: createDisksStep,
      title: 'Make disks on the chosen point',
      run: (context) => {
        const overlayId = overlayOf(context.job.jobId)
        const { point } = context.params
        return createDisks(context, vmOf(context), { overlayId, point, purpose: 'failover', verify: true })
      },
    },
    { name: 'define-vm', title: 'Define the VM with them', run: defineFailoverVm },
    {
      name: 'start-vm',
      title: 'Start the VM and see it run',
      run: (context) => startFailoverVm(context, 'lenient', landedEffect(context, 'change of point')),
    },
  ],
  undoSteps: [{ name: 'record', title: 'Keep the failed change', run: recordFailure }],
  undo: () => ['record'],
  noReturnFrom: 'begin',
})

function swapOverlay(context: StepContext<Params>): Promise<StepOutcome> {
  const { target, overlay, vmId } = vmOf(context)
  const overlayId = defined(overlay, 'the overlay of the failover')
  const command = { server: target.agentId, kind: 'overlay.remove', request: { vmId, overlayId } } as const
  const patch = { overlay: overlayOf(context.job.jobId) }
  return byCommand(context, command, () => ({ kind: 'done', effect: { patch } }))
}
