import type { Clock } from '#shared/clock.ts'
import type { VmId } from '#shared/ids.ts'
import type { Logger } from '#shared/log.ts'
import { Wakeup } from '#shared/wakeup.ts'
import { limits } from './limits.ts'
import type { RemoteReplicaStore } from './replica/remote.ts'
import type { ReplicaReports } from './replica-reports.ts'
import type { ReplicaServer } from './stream/target/replica-server.ts'

export interface Pruner {
  /** A point came, a pin or an overlay went, the policy changed: retention may have something to do. */
  due(vmId: VmId): void
  /** Until the signal. One merge at a time, between the batches of whatever is being received. */
  run(signal: AbortSignal): Promise<void>
}

export function createPruner(options: {
  readonly store: RemoteReplicaStore
  readonly server: Pick<ReplicaServer, 'exclusively'>
  readonly reports: ReplicaReports
  readonly clock: Clock
  readonly log: Logger
}): Pruner {
  const { store, server, reports, clock, log } = options
  const due = new Set<VmId>()
  const changed = new Wakeup()

  async function prune(vmId: VmId, signal: AbortSignal): Promise<void> {
    try {
      let more = true
      while (more && !signal.aborted) {
        more = await server.exclusively(vmId, async () => {
          const known = await store.get(vmId)
          return known ? await store.prune(vmId, clock.now()) : false
        })
      }
      await reports.failed(vmId, null)
    } catch (error) {
      if (signal.aborted) return
      log.warn('pruning failed', { vmId, error })
      await reports.failed(vmId, error)
      // Not at once: a full disk or a damaged layer is still so a moment later. The next point asks again anyway.
      due.add(vmId)
      await clock.sleep(limits.retryLastMs, signal).catch(() => {})
    }
  }

  return {
    due(vmId) {
      due.add(vmId)
      changed.notify()
    },
    async run(signal) {
      while (!signal.aborted) {
        const [vmId] = due
        if (vmId === undefined) await changed.next(signal).catch(() => {})
        else {
          due.delete(vmId)
          await prune(vmId, signal)
        }
      }
    },
  }
}
