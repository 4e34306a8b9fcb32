/** The end of a merge, as far as leaves and damage are concerned. Called by whoever merges layer files. */

import { blockCountOf } from '#shared/blocks/block.ts'
import { GROUP_CHILDREN } from '#shared/blocks/hash-tree.ts'
import type { DiskId, VmId } from '#shared/ids.ts'
import type { Catalog } from '../catalog/catalog.ts'
import type { ChainPoint } from '../catalog/chain.ts'

export interface MergedMembers {
  readonly vmId: VmId
  readonly lower: ChainPoint
  readonly upper: ChainPoint
  /** Which of the lower member's layers stood on another one. */
  readonly lowerHasBacking: (diskId: DiskId) => boolean
  /** Size of the merged file. */
  readonly fileBytes: (diskId: DiskId) => number
  readonly nowMs: number
}

/**
 * Inside the transaction that removes `lower` from the chain, and before that: the leaves of each merged file are those
 * of both layers, and a block that was damaged stays so unless the upper layer says something else of it.
 */
export function mergeLayerLeaves(catalog: Catalog, merged: MergedMembers): void {
  const { vmId, lower, upper, lowerHasBacking, fileBytes, nowMs } = merged
  for (const { diskId } of lower.disks) {
    const above = upper.disks.find((disk) => disk.diskId === diskId)
    const lowerKey = { vmId, diskId, seq: lower.seq }
    const upperKey = { vmId, diskId, seq: upper.seq }
    if (!above) {
      catalog.layerLeaves.remove(lowerKey)
      catalog.damage.clearLayer(lowerKey)
      continue
    }
    const blocks = blockCountOf(above.sizeBytes)
    const isKnown = catalog.layerLeaves.facts(upperKey) !== undefined
    const isStillSeen = (blockIndex: number) =>
      blockIndex < blocks &&
      isKnown &&
      catalog.layerLeaves
        .group(upperKey, Math.floor(blockIndex / GROUP_CHILDREN))
        .state(blockIndex % GROUP_CHILDREN) === 'absent'
    catalog.damage.carry(lowerKey, upperKey, isStillSeen, nowMs)
    catalog.layerLeaves.unite({
      lower: lowerKey,
      upper: upperKey,
      lowerHasBacking: lowerHasBacking(diskId),
      sizeBytes: above.sizeBytes,
      fileBytes: fileBytes(diskId),
    })
  }
}

/** False while the tables of one of the two are not what they should be: merging would make the damage final. */
export function mayMerge(catalog: Catalog, vmId: VmId, members: readonly ChainPoint[]): boolean {
  return members.every(({ seq, disks }) =>
    disks.every(({ diskId }) => !catalog.damage.isWhole({ vmId, diskId, seq })),
  )
}
