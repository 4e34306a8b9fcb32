import { dirname } from 'node:path'
import type { Clock } from '#shared/clock.ts'
import { diskFull } from '#shared/errors/disk-full.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { isNoRoom } from '#shared/errors/no-room.ts'
import type { VmId } from '#shared/ids.ts'
import type { Logger } from '#shared/log.ts'
import type { Catalog, ReplicaRow } from './catalog/catalog.ts'
import type { ReplicaCrash } from './crash-points.ts'
import type { ReplicaFiles } from './files.ts'
import type { Paths } from './names.ts'

/** What the parts of the store share. */
export interface ReplicaContext {
  readonly catalog: Catalog
  readonly files: ReplicaFiles
  readonly paths: Paths
  readonly crash: ReplicaCrash
  readonly clock: Clock
  readonly log: Logger
  readonly readers: Readers
  readonly leavesInMemoryBytes: number
}

/** `asReplicaError` for an error of this store. */
export function storeError({ paths }: Pick<ReplicaContext, 'paths'>, error: unknown): unknown {
  return asReplicaError(error, dirname(paths.database))
}

/** VMs whose layers somebody reads in many steps, counting on it that their files stay: merges wait for that. */
export class Readers {
  readonly #held = new Map<VmId, number>()

  hold(vmId: VmId): Disposable {
    this.#held.set(vmId, (this.#held.get(vmId) ?? 0) + 1)
    return {
      [Symbol.dispose]: () => {
        const left = (this.#held.get(vmId) ?? 1) - 1
        if (left === 0) this.#held.delete(vmId)
        else this.#held.set(vmId, left)
      },
    }
  }

  isHeld(vmId: VmId): boolean {
    return this.#held.has(vmId)
  }
}

export function replicaOrThrow({ catalog }: ReplicaContext, vmId: VmId): ReplicaRow {
  const replica = catalog.replica(vmId)
  if (!replica || replica.state === 'removing') {
    throw new HotsiteError('replica-unknown', `this target holds no replica of ${vmId}`, {
      details: { vmId },
    })
  }
  return replica
}

export function refuseOlderEpoch(replica: ReplicaRow, epoch: number): void {
  if (epoch >= replica.epoch) return
  throw new HotsiteError(
    'epoch-stale',
    `epoch ${epoch} of ${replica.vmId} is over: epoch ${replica.epoch} is in force`,
    { details: { vmId: replica.vmId, epoch: replica.epoch } },
  )
}

/** A full disk and missing rights become errors an operator can act on; others pass unchanged. `dir`: the store's. */
export function asReplicaError(error: unknown, dir: string): unknown {
  if (error instanceof HotsiteError || !(error instanceof Error) || !('code' in error)) return error
  if (isNoRoom(error)) return diskFull('replicas', dir, error)
  switch (error.code) {
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return new HotsiteError('permission-denied', error.message, { cause: error })
    default:
      return error
  }
}
