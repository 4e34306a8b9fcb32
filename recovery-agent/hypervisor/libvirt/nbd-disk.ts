/** A disk of a snapshot that QEMU shows over NBD. */
import type { NbdClient, StatusExtent } from '../../nbd/client.ts'
import { allocation, DIRTY } from '../../nbd/protocol.ts'
import type { Extent, SnapshotDisk } from '../port.ts'

export function nbdDisk(
  client: NbdClient,
  { diskId, changes }: Pick<SnapshotDisk, 'diskId' | 'changes'>,
): SnapshotDisk {
  const walk = new DataWalk(client)
  return {
    diskId,
    sizeBytes: client.sizeBytes,
    changes,
    get allocated() {
      return [...dataOf(client.status('base:allocation', 0, client.sizeBytes))]
    },
    nextData: (offsetBytes) => walk.next(offsetBytes),
    read: (target, offsetBytes) => client.read(target, offsetBytes),
  }
}

/** What was written since the bitmap began. */
export function dirtyExtents(client: NbdClient, bitmap: string): Extent[] {
  const all = [...client.status(bitmap, 0, client.sizeBytes)]
  return all.filter(({ flags }) => (flags & DIRTY) !== 0).map(extentOf)
}

function* dataOf(extents: Iterable<StatusExtent>): Generator<Extent, void> {
  for (const extent of extents) if ((extent.flags & allocation.zero) === 0) yield extentOf(extent)
}

function extentOf({ offsetBytes, lengthBytes }: StatusExtent): Extent {
  return { offsetBytes, lengthBytes }
}

/** Readers go forwards: one walk over the map of a disk serves them all, and begins anew when somebody goes back. */
class DataWalk {
  readonly #client: NbdClient
  #extents: Generator<Extent, void> | undefined
  #fromBytes = 0
  #found: Extent | null | undefined

  constructor(client: NbdClient) {
    this.#client = client
  }

  next(offsetBytes: number): Extent | null {
    const { sizeBytes } = this.#client
    if (offsetBytes >= sizeBytes) return null
    if (!this.#extents || offsetBytes < this.#fromBytes) {
      this.#extents = dataOf(this.#client.status('base:allocation', offsetBytes, sizeBytes))
      this.#found = undefined
    }
    this.#fromBytes = offsetBytes
    while (this.#found === undefined || (this.#found !== null && endOf(this.#found) <= offsetBytes))
      this.#found = this.#extents.next().value ?? null
    return this.#found
  }
}

function endOf({ offsetBytes, lengthBytes }: Extent): number {
  return offsetBytes + lengthBytes
}
