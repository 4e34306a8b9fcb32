import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { VmId } from '#shared/ids.ts'
import type { AgentCommandKind, CommandHandlers, CommandRequest } from '#shared/messages/commands.ts'
import type { Pruner } from '../daemon/pruner.ts'
import type { Scrubber } from '../daemon/scrubber.ts'
import type { HostFiles } from '../hypervisor/port.ts'
import type { RemoteReplicaStore } from '../replica/remote.ts'
import type { ReplicaReports } from '../reports/replica-reports.ts'
import type { Sources } from '../source/sources.ts'
import { staleEpoch } from '../stream/target/check-open.ts'
import type { ReplicaServer } from '../stream/target/replica-server.ts'

export type ReplicaCommandKind = Extract<AgentCommandKind, `replica.${string}` | `overlay.${string}`>

export interface ReplicaCommandDeps {
  readonly store: RemoteReplicaStore
  readonly server: Pick<ReplicaServer, 'exclusively'>
  readonly reports: ReplicaReports
  readonly pruner: Pruner
  readonly scrubber: Scrubber
  readonly sources: Sources
  readonly overlayFormat: HostFiles['overlayFormat']
  readonly stoppedDisks: HostFiles['stoppedDisks']
}

/** What a target does for the coordinator. Each may be repeated (I4). */
export function replicaCommands(deps: ReplicaCommandDeps): CommandHandlers<ReplicaCommandKind> {
  const { store, server, reports, pruner, scrubber, sources } = deps

  const changing = async <T>(vmId: VmId, task: Parameters<typeof server.exclusively<T>>[1]): Promise<T> => {
    const result = await server.exclusively(vmId, task)
    await reports.publish(vmId)
    pruner.due(vmId)
    return result
  }

  return {
    'replica.prepare': async ({ vmId, epoch, disks, sourceServerId, policy }) => {
      await changing(vmId, async (interrupt) => {
        const before = await store.get(vmId)
        if (before && (before.epoch < epoch || before.sourceServerId !== sourceServerId)) {
          await interrupt(staleEpoch(vmId, before.epoch, epoch))
        }
        const bare = disks.map(({ diskId, sizeBytes }) => ({ diskId, sizeBytes }))
        await store.prepare({ vmId, epoch, sourceServerId, policy, disks: bare })
      })
      return {}
    },
    'replica.adopt': async (request) => {
      await adopt(deps, request)
      return {}
    },
    'replica.fence': async ({ vmId, epoch }) => {
      const newest = await changing(vmId, async (interrupt) => {
        const before = await store.get(vmId)
        const { epoch: held } = await store.raiseEpoch(vmId, epoch)
        if (before && before.epoch < held) await interrupt(staleEpoch(vmId, before.epoch, held))
        return (await store.points(vmId)).toSorted((a, b) => b.seq - a.seq)[0]
      })
      return { newest: newest ? { epoch: newest.epoch, seq: newest.seq } : null }
    },
    'overlay.create': async ({ vmId, overlayId, point, purpose, verify }) => {
      const request = { vmId, overlayId, point, purpose, verify, format: deps.overlayFormat }
      // Not exclusively: the lease keeps the point, and deltas go on coming while it is read.
      try {
        const created = await store.createOverlay(request).catch(async (error: unknown) => {
          if (!(error instanceof HotsiteError) || error.code !== 'point-damaged') throw error
          await scrubber.heal(vmId)
          return await store.createOverlay(request)
        })
        return { ...created, disks: [...created.disks] }
      } finally {
        await reports.publish(vmId)
        pruner.due(vmId)
      }
    },
    'overlay.remove': async ({ vmId, overlayId }) => {
      await changing(vmId, () => store.removeOverlay(vmId, overlayId))
      return {}
    },
    'replica.commit': async ({ vmId, overlayId }) => {
      await changing(vmId, async (interrupt) => {
        await interrupt(new HotsiteError('replica-unknown', `the failover of VM ${vmId} was committed`))
        await store.commit(vmId, overlayId)
      })
      return {}
    },
    'replica.remove': async ({ vmId }) => {
      await server.exclusively(vmId, async (interrupt) => {
        await interrupt(new HotsiteError('replica-unknown', `the replica of VM ${vmId} was removed`))
        if (await store.get(vmId)) await store.remove(vmId)
      })
      reports.forget(vmId)
      return {}
    },
    'replica.verify': ({ vmId, percent }) => scrubber.verify({ vmId, percent }),
    'replica.pin': async ({ vmId, point, pinned }) => {
      await changing(vmId, () => store.pin(vmId, point, pinned))
      return {}
    },
  }

  async function adopt({ stoppedDisks }: ReplicaCommandDeps, request: CommandRequest<'replica.adopt'>) {
    const { vmId, epoch, fabricVmId, sourceServerId, policy } = request
    const own = sources.epochOf(vmId)
    if (own !== undefined && own >= epoch) throw staleEpoch(vmId, epoch, own)
    // It becomes a target: whatever it still had to send is of an epoch that is over (I5).
    sources.fence(vmId, epoch)
    await sources.stop(vmId)
    await changing(vmId, async (interrupt) => {
      const known = await store.get(vmId)
      // A repeat: the base was adopted, and what was received since must stay.
      if (known?.epoch === epoch && (await store.points(vmId)).some((point) => point.epoch === epoch)) return
      await interrupt(staleEpoch(vmId, known?.epoch ?? 0, epoch))
      using stopped = await stoppedDisks(fabricVmId)
      await store.adopt({ vmId, epoch, sourceServerId, policy, disks: stopped.disks })
    })
  }
}
