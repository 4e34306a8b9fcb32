import type { AgentCommandKind, CommandHandlers } from '#shared/messages/commands.ts'
import type { Sources } from '../source/sources.ts'

export type SourceCommandKind = Extract<AgentCommandKind, `replication.${string}`>

/** What a source does for the coordinator. Each may be repeated (I4). */
export function sourceCommands(sources: Sources): CommandHandlers<SourceCommandKind> {
  return {
    'replication.start': async (request) => {
      await sources.start(request)
      return {}
    },
    'replication.renewTicket': async (request) => {
      await sources.renewTicket(request)
      return {}
    },
    'replication.pause': async ({ vmId }) => {
      await sources.setPaused(vmId, true)
      return {}
    },
    'replication.resume': async ({ vmId }) => {
      await sources.setPaused(vmId, false)
      return {}
    },
    'replication.resync': async ({ vmId, cause }) => {
      await sources.resync(vmId, cause)
      return {}
    },
    'replication.finalDelta': ({ vmId }, signal) => sources.finalCopy(vmId, signal),
    'replication.copyNow': ({ vmId }, signal) => sources.copy(vmId, signal),
    'replication.stop': async ({ vmId }) => {
      await sources.stop(vmId)
      return {}
    },
    'replication.approveResync': async ({ vmId }) => {
      await sources.approveResync(vmId)
      return {}
    },
    'replication.verify': ({ vmId, percent }) => sources.verify(vmId, percent),
    'replication.fence': async ({ vmId, epoch }) => {
      sources.fence(vmId, epoch)
      return {}
    },
  }
}
