import type { Clock } from '#shared/clock.ts'
import type { VmId } from '#shared/ids.ts'
import type { Logger } from '#shared/log.ts'
import { Wakeup } from '#shared/wakeup.ts'
import { limits } from '../limits.ts'
import type { RemoteReplicaStore } from '../replica/remote.ts'
import type { ReplicaReports } from '../reports/replica-reports.ts'
import type { ReplicaServer } from '../stream/target/replica-server.ts'

/** While a delta is being received, merges take a quarter of the time: it waits for three times what a slice took. */
const RECEIVING_PAUSE_FACTOR = 3
/** And never longer than this: a source that fell silent in the middle of a delta does not stop merges. */
const RECEIVING_PAUSE_MAX_MS = 500
/** The debt of a long merge is reported this often. */
const REPORT_EVERY_MS = 5_000

export interface Pruner {
  /** A point came, a pin or an overlay went, the policy changed: retention may have something to do. */
  due(vmId: VmId): void
  /** Until the signal. One merge at a time on this host, in slices between whatever else the store is asked for. */
  run(signal: AbortSignal): Promise<void>
}

export interface PrunerOptions {
  readonly store: RemoteReplicaStore
  readonly server: Pick<ReplicaServer, 'exclusively' | 'isReceiving'>
  readonly reports: Pick<ReplicaReports, 'publish' | 'failed'>
  /** Whether a VM of this site is defined with one of these files. */
  readonly anyVmNames: (paths: readonly string[]) => Promise<boolean>
  readonly clock: Clock
  readonly log: Logger
}

export function createPruner(options: PrunerOptions): Pruner {
  const { store, server, reports, anyVmNames, clock, log } = options
  const due = new Set<VmId>()
  const changed = new Wakeup()

  /** What an earlier failover ran on here, once its VM is defined without it: the copy in the replica has taken its place. */
  async function removeFormer(vmId: VmId): Promise<void> {
    for (const { overlayId, disks } of await store.formerOverlays(vmId)) {
      if (await anyVmNames(disks.map(({ path }) => path))) continue
      await store.removeOverlay(vmId, overlayId)
      log.info('the disks of an earlier failover were removed', { vmId, overlayId })
    }
  }

  /** True: another slice is due. */
  const slice = (vmId: VmId) =>
    server.exclusively(vmId, async () => {
      const known = await store.get(vmId)
      return known ? await store.prune(vmId, clock.now()) : false
    })

  /** What is being received goes first. */
  async function giveWay(sliceMs: number, signal: AbortSignal): Promise<void> {
    if (!server.isReceiving()) return
    const pauseMs = Math.min(sliceMs * RECEIVING_PAUSE_FACTOR, RECEIVING_PAUSE_MAX_MS)
    await clock.sleep(pauseMs, signal).catch(() => {})
  }

  async function mergeAll(vmId: VmId, signal: AbortSignal): Promise<void> {
    let reportedMs = clock.monotonicMs()
    while (!signal.aborted) {
      const beganMs = clock.monotonicMs()
      if (!(await slice(vmId))) return
      const nowMs = clock.monotonicMs()
      if (nowMs - reportedMs >= REPORT_EVERY_MS) {
        reportedMs = nowMs
        await reports.publish(vmId)
      }
      await giveWay(nowMs - beganMs, signal)
    }
  }

  async function prune(vmId: VmId, signal: AbortSignal): Promise<void> {
    try {
      await mergeAll(vmId, signal)
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
