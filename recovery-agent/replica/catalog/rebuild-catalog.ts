/**
 * Replicas whose rows are not in replica.db come back from the copies beside their layers (catalog-copy.ts).
 *
 * Rows first, in one transaction, so that the epoch is in force (I5) and nothing of the replica is taken for a leftover.
 * Then the hash tree of the newest point, from the layers as they are. What is in older layers nobody knows yet: their
 * leaves are made when they are read, and a point whose root does not come out of them is not served. A delta that was
 * on its way starts over.
 *
 * A database that is older than the copy, as one brought back from a backup, never lowers an epoch.
 */
import { BLOCK_BYTES } from '#shared/blocks/block.ts'
import { leafOf } from '#shared/blocks/hash-tree.ts'
import { CLUSTER_BYTES } from '#shared/formats/qcow2/header.ts'
import { dataRuns } from '#shared/formats/qcow2/layer-reader.ts'
import { type VmId, vmId } from '#shared/ids.ts'
import { readStoredManifest } from '#shared/trust/point-manifest.ts'
import { PendingTree } from '../../tree/leaf-store.ts'
import type { ReplicaContext } from '../context.ts'
import { withChain } from '../merging/layer-chain.ts'
import { finishRepointing } from '../receiving/repoint.ts'
import { treeOf } from './catalog.ts'
import { type CatalogCopy, readCatalogCopy } from './catalog-copy.ts'
import type { ChainDisk, ChainPoint } from './chain.ts'

/** Changes of a tree held before they are stored. */
const MAX_PENDING_BYTES = 16 << 20

/** Call once, before anything is swept. Answers the VMs that were brought back. */
export function rebuildCatalog(context: ReplicaContext): VmId[] {
  const { catalog, files, log, paths } = context
  const rebuilt: VmId[] = []
  for (const name of files.list(paths.replicas)) {
    const id = vmId.safeParse(name)
    if (!id.success || !files.exists(paths.catalogCopy(id.data))) continue
    // One copy that cannot be read must not keep the others from coming back.
    try {
      const copy = readCatalogCopy(context, id.data)
      const row = catalog.replica(id.data)
      if (!copy || copy.replica.vmId !== id.data) continue
      if (row) keepEpoch(context, copy)
      else {
        rebuildReplica(context, copy)
        rebuilt.push(id.data)
      }
    } catch (error) {
      log.error('replica.copy-unusable', { vmId: id.data, error })
    }
  }
  return rebuilt
}

function keepEpoch({ catalog, log }: ReplicaContext, { replica }: CatalogCopy): void {
  const row = catalog.replica(replica.vmId)
  if (!row || row.epoch >= replica.epoch) return
  log.warn('replica.database-is-older', { vmId: row.vmId, held: row.epoch, inForce: replica.epoch })
  catalog.putReplica({ ...row, epoch: replica.epoch, sourceServerId: replica.sourceServerId })
}

/** Whatever replica.db says of the VM makes way, in the transaction that puts the copy in its place. */
export function rebuildReplica(context: ReplicaContext, copy: CatalogCopy): void {
  const { catalog, log } = context
  const { replica, chain, overlays, backfills } = copy
  const { vmId: id } = replica
  const isSigned = chain.every(({ member, manifest }) => isManifestOf(member, manifest))
  if (!isSigned) log.warn('replica.copy-differs-from-manifests', { vmId: id })
  catalog.transaction(() => {
    catalog.removeRows(id)
    // Those of disks that came after the copy too: a synchronization would take them for blocks it need not send.
    for (const tree of catalog.leaves.names()) if (tree.startsWith(`${id}/`)) catalog.leaves.truncate(tree, 0)
    catalog.putReplica(replica)
    for (const { member, manifest, suspect } of chain) {
      catalog.addToChain(id, member, manifest)
      if (suspect !== null) catalog.suspicions.put(id, member.seq, suspect)
    }
    for (const overlay of overlays) catalog.putOverlay(overlay)
    for (const backfill of backfills) catalog.backfills.put(id, { ...backfill, partial: null })
  })
  finishRepointing(context, id)
  const newest = chain.at(-1)?.member
  for (const disk of newest?.disks ?? []) {
    if (newest) rebuildTree(context, { id, newest, disk })
  }
  log.warn('replica.rebuilt-from-copy', { vmId: id, points: chain.length, epoch: replica.epoch })
}

/** The copy has a checksum against accidents; against the roots in it stands the word of the source. */
function isManifestOf(member: ChainPoint, manifest: Buffer | null): boolean {
  if (manifest === null) return member.state !== 'point'
  try {
    const { epoch, seq, disks } = readStoredManifest(manifest)
    return (
      epoch === member.epoch &&
      seq === member.seq &&
      disks.length === member.disks.length &&
      disks.every(({ diskId, root, sizeBytes }) =>
        member.disks.some(
          (disk) => disk.diskId === diskId && disk.sizeBytes === sizeBytes && disk.root.equals(root),
        ),
      )
    )
  } catch {
    return false
  }
}

/**
 * Of the newest state of one disk. If it cannot be read, the tree stays empty: the next delta then diverges, and the
 * synchronization that follows finds what is there and what is not.
 */
function rebuildTree(
  context: ReplicaContext,
  { id, newest, disk }: { id: VmId; newest: ChainPoint; disk: ChainDisk },
): void {
  const { catalog, files, log, paths } = context
  const name = treeOf(id, disk.diskId)
  const tree = new PendingTree(catalog.leaves, name)
  const flush = () => catalog.transaction(() => tree.flush())
  const buffer = Buffer.allocUnsafe(16 * CLUSTER_BYTES)
  try {
    withChain(files, paths.layer(id, disk.diskId, newest), (layers) => {
      for (const run of dataRuns(layers)) {
        const bytes = buffer.subarray(0, run.blockCount * CLUSTER_BYTES)
        run.layer.file.read(bytes, run.cluster * CLUSTER_BYTES)
        for (let i = 0; i < run.blockCount; i++)
          tree.setLeaf(run.blockIndex + i, leafOf(bytes.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES)))
        if (tree.pendingBytes > MAX_PENDING_BYTES) flush()
      }
    })
    flush()
    if (newest.state === 'point' && !tree.root(disk.sizeBytes).equals(disk.root))
      log.warn('replica.newest-differs', { vmId: id, diskId: disk.diskId, seq: newest.seq })
  } catch (error) {
    catalog.transaction(() => catalog.leaves.truncate(name, 0))
    log.error('replica.tree-not-rebuilt', { vmId: id, diskId: disk.diskId, error })
  }
}
