/**
 * Retention at work: decide (pure), then merge one member of a chain into the next (shared/formats/qcow2/merge.ts).
 *
 * The point is marked `merging` first, in the database, so that nobody stands on it any more; then, disk by disk, the
 * next layer's blocks are written into its file and the file is renamed over the next layer; then its row goes. Each
 * step may be repeated: a merge that ran once runs again with the same outcome, and a file that is gone was renamed.
 */

import { CLUSTER_BYTES } from '#shared/formats/qcow2/header.ts'
import { readLayer } from '#shared/formats/qcow2/layer-reader.ts'
import { mergeInto } from '#shared/formats/qcow2/merge.ts'
import type { DiskId, VmId } from '#shared/ids.ts'
import { decideRetention, retentionOf } from '#shared/policy/retention.ts'
import type { ReplicaRow } from './catalog.ts'
import type { Chain, ChainPoint } from './chain.ts'
import type { ReplicaContext } from './context.ts'
import { mergeLayerLeaves } from './merge-leaves.ts'
import { overlaysOn } from './overlays.ts'

interface Merge {
  readonly lower: ChainPoint
  readonly upper: ChainPoint
}

/** Merges one member if there is one to merge. True: another is due. */
export function pruneOne(context: ReplicaContext, replica: ReplicaRow): boolean {
  const merge = dueMerges(context, replica)[0]
  if (!merge) return false
  applyMerge(context, replica.vmId, merge)
  return dueMerges(context, replica).length > 0
}

/** Oldest first, so that a run of dropped points copies each block once. */
export function dueMerges(context: ReplicaContext, replica: ReplicaRow): Merge[] {
  const chain = context.catalog.chain(replica.vmId)
  const dropped = droppedSeqs(context, replica, chain)
  return chain.flatMap((lower, i) => {
    const upper = chain[i + 1]
    const isDue = lower.state !== 'point' || dropped.has(lower.seq)
    return upper && isDue ? [{ lower, upper }] : []
  })
}

function droppedSeqs(context: ReplicaContext, replica: ReplicaRow, chain: Chain): ReadonlySet<number> {
  const overlays = context.catalog.overlays(replica.vmId)
  const points = chain
    .filter(({ state }) => state === 'point')
    .map((point) => ({
      ...point,
      inUse: overlaysOn(overlays, point).length > 0,
      suspect: false,
      damaged: false,
    }))
  const policy = retentionOf(
    replica.state === 'committed'
      ? { retentionPoints: 0, retentionIntervalSeconds: 0, appConsistentHours: 0 }
      : replica.policy,
  )
  const decisions = decideRetention({ points, policy })
  return new Set(decisions.filter(({ keep }) => !keep).map(({ seq }) => seq))
}

/** Also what finishes a merge that a crash interrupted. */
export function applyMerge(context: ReplicaContext, vmId: VmId, { lower, upper }: Merge): void {
  const { catalog, crash, files, log, paths } = context
  if (lower.state !== 'merging') catalog.setState(vmId, lower.seq, 'merging')
  crash('replica.prune-marked')
  for (const { diskId } of lower.disks) {
    mergeDisk(context, { vmId, diskId, lower, upper })
    crash('replica.prune-disk-done')
  }
  catalog.transaction(() => {
    const below = catalog.chain(vmId).findLast(({ seq }) => seq < lower.seq)
    mergeLayerLeaves(catalog, {
      vmId,
      lower,
      upper,
      lowerHasBacking: (diskId) => below?.disks.some((disk) => disk.diskId === diskId) ?? false,
      fileBytes: (diskId) => fileBytes(context, paths.layer(vmId, diskId, upper)),
      nowMs: context.clock.now(),
    })
    catalog.removeFromChain(vmId, lower.seq)
    for (const disk of upper.disks) {
      const path = paths.layer(vmId, disk.diskId, upper)
      catalog.putChainDisk(vmId, upper.seq, {
        ...disk,
        storedBytes: files.storedBytes(path),
        changedBytes: layerBytes(context, path),
      })
    }
  })
  crash('replica.prune-committed')
  log.info('replica.point-pruned', { vmId, epoch: lower.epoch, seq: lower.seq, into: upper.seq })
}

function mergeDisk(
  { crash, files, paths }: ReplicaContext,
  { vmId, diskId, lower, upper }: Merge & { vmId: VmId; diskId: DiskId },
): void {
  const lowerPath = paths.layer(vmId, diskId, lower)
  const upperPath = paths.layer(vmId, diskId, upper)
  if (!files.exists(lowerPath)) return
  if (!upper.disks.some((disk) => disk.diskId === diskId)) {
    files.remove(lowerPath)
    files.syncFolder(paths.diskFolder(vmId, diskId))
    return
  }
  const lowerFile = files.open(lowerPath, 'write')
  try {
    const upperFile = files.open(upperPath, 'read')
    try {
      mergeInto(readLayer(lowerFile, lowerPath), readLayer(upperFile, upperPath), (step) =>
        crash(`replica.prune-${step}`),
      )
    } finally {
      upperFile.close()
    }
  } finally {
    lowerFile.close()
  }
  files.rename(lowerPath, upperPath)
  crash('replica.prune-renamed')
  files.syncFolder(paths.diskFolder(vmId, diskId))
}

function fileBytes({ files }: ReplicaContext, path: string): number {
  const file = files.open(path, 'read')
  try {
    return file.sizeBytes()
  } finally {
    file.close()
  }
}

function layerBytes({ files }: ReplicaContext, path: string): number {
  const file = files.open(path, 'read')
  try {
    let blocks = 0
    for (const _ of readLayer(file, path).map.entries()) blocks++
    return blocks * CLUSTER_BYTES
  } finally {
    file.close()
  }
}

/** Bytes that merges due now will have to copy. */
export function mergeDebtBytes(context: ReplicaContext, replica: ReplicaRow): number {
  return dueMerges(context, replica)
    .flatMap(({ upper }) => upper.disks)
    .reduce((sum, disk) => sum + disk.storedBytes, 0)
}
