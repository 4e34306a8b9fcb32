import type { Clock } from '#shared/clock.ts'
import type { VmId } from '#shared/ids.ts'
import type { Logger } from '#shared/log.ts'
import { Wakeup } from '#shared/wakeup.ts'
import { limits } from '../limits.ts'
import type { RemoteReplicaStore } from '../replica/remote.ts'
import type { ReplicaReports } from '../reports/replica-reports.ts'
import type { ReplicaServer } from '../stream/target/replica-server.ts'

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
  /** Whether a VM of this site is defined with one of these files. */
  readonly anyVmNames: (paths: readonly string[]) => boolean
  readonly clock: Clock
  readonly log: Logger
}): Pruner {
  const { store, server, reports, anyVmNames, clock, log } = options
  const due = new Set<VmId>()
  const changed = new Wakeup()

  /** What an earlier failover ran on here, once its VM is defined without it: the copy in the replica has taken its place. */
  async function removeFormer(vmId: VmId): Promise<void> {
    for (const { overlayId, disks } of await store.formerOverlays(vmId)) {
      if (anyVmNames(disks.map(({ path }) => path))) continue
      await store.removeOverlay(vmId, overlayId)
      log.info('the disks of an earlier failover were removed', { vmId, overlayId })
    }
  }

  async function prune(vmId: VmId, signal: AbortSignal): Promise<void> {
    try {
      let more = true
      while (more && !signal.aborted) {
        more = await server.exclusively(vmId, async () => {
          const known = await store.get(vmId)
          return known ? await store.prune(vmId, clock.now()) : false
        })
      }
      await server.exclusively(vmId, () => removeFormer(vmId))
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
