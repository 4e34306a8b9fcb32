/** What the newest state of a disk shows and its layers no longer hold. */
import { HASH_BYTES } from '#shared/blocks/hash-tree.ts'
import type { DiskId, VmId } from '#shared/ids.ts'
import type { Catalog } from '../catalog/catalog.ts'
import { visibleDamage } from '../catalog/damage.ts'

/** In place of a leaf while a synchronization compares: nothing hashes to it, so the block travels. */
export const LOST_LEAF: Buffer = Buffer.alloc(HASH_BYTES, 0xff)

export function lostBlocks(catalog: Catalog, vmId: VmId, diskId: DiskId): number[] {
  const damages = catalog.damage.list(vmId).filter((damage) => damage.diskId === diskId)
  if (damages.length === 0) return []
  const chain = catalog.chain(vmId)
  const newest = chain.at(-1)?.seq
  return damages.flatMap((damage) =>
    [...visibleDamage(chain, damage, catalog.layerLeaves)].flatMap(({ seq, blockIndexes }) =>
      seq === newest ? blockIndexes : [],
    ),
  )
}
