import type { ReportOutbox } from '#shared/agent-link/report-outbox.ts'
import type { Clock } from '#shared/clock.ts'
import { errorDocument } from '#shared/errors/hotsite-error.ts'
import type { VmId } from '#shared/ids.ts'
import { KeyedLocks } from '#shared/keyed-locks.ts'
import type { Logger } from '#shared/log.ts'
import type { RemoteReplicaStore } from '../replica/remote.ts'

export interface ReplicaReports {
  /** Something about this replica changed. */
  publish(vmId: VmId): Promise<void>
  /** Something went wrong with it (null: it is well again). */
  failed(vmId: VmId, error: unknown): Promise<void>
  forget(vmId: VmId): void
}

/** The whole state of each replica, read from the store whenever it changed. */
export function createReplicaReports(options: {
  readonly store: RemoteReplicaStore
  readonly outbox: ReportOutbox
  readonly clock: Clock
  readonly log: Logger
}): ReplicaReports {
  const { store, outbox, clock, log } = options
  /** Two readers of one replica could publish in the wrong order. */
  const order = new KeyedLocks<VmId>()
  const errors = new Map<VmId, { code: string; message: string; atMs: number }>()

  const publish = (vmId: VmId) =>
    order.run(vmId, async () => {
      try {
        const replica = await store.get(vmId)
        if (!replica) return outbox.remove('replica', vmId)
        const points = await store.points(vmId)
        const { diskBytes, mergeDebtBytes } = await store.usage(vmId)
        const error = errors.get(vmId) ?? null
        outbox.set('replica', vmId, {
          vmId,
          epoch: replica.epoch,
          points: [...points],
          mergeDebtBytes,
          diskBytes,
          proof: [...(await store.proof(vmId))],
          error,
        })
      } catch (error) {
        log.error('the state of a replica cannot be read', { vmId, error })
      }
    })

  return {
    publish,
    failed(vmId, error) {
      if (error === null) errors.delete(vmId)
      else {
        const { code, message } = errorDocument(error)
        errors.set(vmId, { code, message, atMs: clock.now() })
      }
      return publish(vmId)
    },
    forget(vmId) {
      errors.delete(vmId)
      outbox.remove('replica', vmId)
    },
  }
}
