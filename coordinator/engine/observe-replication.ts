import type { ServerId } from '#shared/ids.ts'
import { resyncCause } from '#shared/messages/commands.ts'
import type { ReplicationReport } from '#shared/messages/reports.ts'
import { isReplicating } from '../domain/protection.ts'
import { pendingResyncText } from '../domain/resync-words.ts'
import type { ProtectedVm } from '../store/documents.ts'
import type { Effect } from './apply-effect.ts'

/**
 * Agents resynchronize by themselves, also while the coordinator is away (I12): the state follows what they report.
 * Reports of another epoch or of another server than the present source say nothing about it.
 */
export function observeReplication(
  vm: ProtectedVm,
  { serverId, report, nowMs }: { serverId: ServerId; report: ReplicationReport; nowMs: number },
): Effect | undefined {
  const { protection, name } = vm
  if (serverId !== vm.source.agentId || report.epoch !== vm.epoch || !isReplicating(protection))
    return undefined
  if (report.activity === 'fenced')
    return {
      notices: [
        {
          severity: 'critical',
          code: 'source-fenced',
          message: `the source agent of ${name} found a higher epoch at the target and stopped replicating`,
          eventId: `source-fenced/${vm.vmId}/${report.epoch}`,
        },
      ],
    }
  // Also while it waits for its window or a person: until it is over no delta means anything.
  const isDue = report.activity === 'synchronizing' || report.resync !== null
  if (isDue && protection.kind === 'protected') {
    const said = report.resync?.cause ?? report.cause
    const cause = resyncCause.safeParse(said)
    const known = cause.success ? cause.data : 'requested'
    const plan = report.resync ? `; ${pendingResyncText(report.resync, nowMs)}` : ''
    const message = `${name} is being resynchronized (${said ?? known})${plan}; its recovery points stay usable`
    return {
      event: { kind: 'resyncBegan', cause: known },
      notices: [{ severity: 'warning', code: 'resync-began', message }],
    }
  }
  if (report.activity === 'replicating' && !isDue && protection.kind === 'resynchronizing')
    return {
      event: { kind: 'resyncEnded' },
      notices: [{ severity: 'info', code: 'resync-ended', message: `${name} is synchronized again` }],
    }
  return undefined
}
