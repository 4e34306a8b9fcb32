import { z } from 'zod'
import { defined } from '#shared/assert.ts'
import { byCommand, jobKind, vmOf } from '../step.ts'

/** The overlay is the VM from now on; the other recovery points may go. */
export const commit = jobKind({
  kind: 'commit',
  params: z.object({}),
  steps: [
    {
      name: 'commit',
      title: 'Make the failover final at the target',
      run: (context) => {
        const { target, overlay, vmId, name } = vmOf(context)
        const overlayId = defined(overlay, 'the overlay of the failover')
        const command = {
          server: target.agentId,
          kind: 'replica.commit',
          request: { vmId, overlayId },
        } as const
        const message = `the failover of ${name} is committed; reverse replication to protect it again`
        return byCommand(context, command, () => ({
          kind: 'done',
          effect: {
            event: { kind: 'committed' },
            notices: [{ severity: 'info', code: 'failover-committed', message }],
          },
        }))
      },
    },
  ],
  undoSteps: [],
  undo: () => [],
})
