/**
 * The layer of a point that came first is made to stand on the one that was put below it since. It has every block that
 * the new one has, so both names in its header give the same bytes, and a crash between the transaction that puts the
 * point into the chain and the new header costs nothing: the next start writes it. Never the other way round, for a
 * header that names a layer no row names would stand on a leftover.
 *
 * The header is changed in place: whoever has the file open reads on through the layer it knows. One sector is written,
 * which a power cut leaves as it was or as it is to be.
 */
import { CLUSTER_BYTES, decodeHeader, encodeHeader } from '#shared/formats/qcow2/header.ts'
import type { DiskId, VmId } from '#shared/ids.ts'
import type { ReplicaContext } from '../context.ts'
import { layerName } from '../names.ts'

const SECTOR_BYTES = 512

/** Whatever a file that cannot be written is said of elsewhere: a proof finds it. Never throws. */
export function finishRepointing(context: ReplicaContext, vmId: VmId): void {
  const { catalog, log } = context
  for (const { topSeq } of catalog.backfills.list(vmId)) {
    try {
      repoint(context, vmId, topSeq)
    } catch (error) {
      if (error instanceof Error && !('code' in error)) throw error
      log.warn('replica.layer-not-repointed', { vmId, seq: topSeq, error })
    }
  }
}

function repoint({ catalog, crash, files, paths }: ReplicaContext, vmId: VmId, topSeq: number): void {
  const chain = catalog.chain(vmId)
  const at = chain.findIndex(({ seq }) => seq === topSeq)
  const [below, top] = [chain[at - 1], chain[at]]
  if (!below || !top) return
  for (const { diskId } of top.disks) {
    const path = paths.layer(vmId, diskId, top)
    if (!hasDisk(below, diskId) || !files.exists(path)) continue
    const file = files.open(path, 'write')
    try {
      const cluster = Buffer.alloc(CLUSTER_BYTES)
      file.read(cluster, 0)
      const header = decodeHeader(cluster, path)
      if (header.backingName === layerName(below)) continue
      const sector = Buffer.alloc(SECTOR_BYTES)
      encodeHeader({ ...header, backingName: layerName(below) }).copy(sector)
      file.write([sector], 0)
      crash('replica.repoint-written')
      file.sync()
      crash('replica.repoint-synced')
    } finally {
      file.close()
    }
  }
}

function hasDisk(
  { disks }: { readonly disks: readonly { readonly diskId: DiskId }[] },
  diskId: DiskId,
): boolean {
  return disks.some((disk) => disk.diskId === diskId)
}
