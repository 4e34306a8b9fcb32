/** Single damaged blocks: what the source should be asked for, and writing what it answers. */
import { GROUP_CHILDREN, HASH_BYTES, leafOf } from '#shared/blocks/hash-tree.ts'
import { CLUSTER_BYTES } from '#shared/formats/qcow2/header.ts'
import { lookUpBlock } from '#shared/formats/qcow2/lookup.ts'
import type { DiskId, VmId } from '#shared/ids.ts'
import type { ReplicaContext } from '../context.ts'
import type { RepairWanted } from '../port.ts'
import { isDiskError } from '../proof/check-layer.ts'
import { type StoredLayer, storedLayers } from '../proof/stored-layers.ts'

/** Damaged blocks of one disk in a fixed order, `skip` of the VM's left out; null: no more. */
export function repairWanted(
  context: ReplicaContext,
  vmId: VmId,
  { skip, maxBlocks }: { readonly skip: number; readonly maxBlocks: number },
): RepairWanted | null {
  const { catalog } = context
  const chain = catalog.chain(vmId)
  const damages = catalog.damage.list(vmId)
  const layers = new Map(
    [...new Set(damages.map(({ diskId }) => diskId))].map((diskId) => [
      diskId,
      storedLayers(context, { vmId, diskId, chain }),
    ]),
  )
  let left = skip
  for (const damage of damages) {
    const { diskId, seq } = damage
    const stored = layers.get(diskId)?.find(({ key }) => key.seq === seq)
    // Without its leaves nothing of a layer can be asked for; the scrub learns them, and the others need not wait.
    if (!stored?.isKnown || damage.groupIndex === null) continue
    if (left >= damage.blockIndexes.length) {
      left -= damage.blockIndexes.length
      continue
    }
    const blockIndexes = damage.blockIndexes.slice(left, left + maxBlocks)
    const group = stored.group(damage.groupIndex)
    const leaves = Buffer.concat(
      blockIndexes.map((blockIndex) => group.leaf(blockIndex % GROUP_CHILDREN)),
      blockIndexes.length * HASH_BYTES,
    )
    return { diskId, blockIndexes, leaves }
  }
  return null
}

/**
 * Writes blocks over damaged ones of the same hash, reads them again, and only then takes the damage back. A crash in
 * between leaves the block damaged or whole, and in either case recorded as damaged. Answers how many were healed.
 */
export function repairBlocks(
  context: ReplicaContext,
  of: {
    readonly vmId: VmId
    readonly diskId: DiskId
    readonly blockIndexes: readonly number[]
    readonly blocks: readonly Uint8Array[]
  },
): number {
  const { catalog } = context
  const { vmId, diskId } = of
  const given = new Map(of.blockIndexes.map((blockIndex, i) => [blockIndex, bufferOf(of.blocks[i])]))
  const chain = catalog.chain(vmId)
  let healed = 0
  for (const stored of storedLayers(context, { vmId, diskId, chain })) {
    if (stored.inMerge || !stored.isKnown || catalog.damage.isWhole(stored.key)) continue
    // Its file is about to be replaced by one that may have been copied from it before.
    if (chain[chain.indexOf(stored.member) - 1]?.state === 'merging') continue
    const wanted = catalog.damage.blocks(stored.key).filter((blockIndex) => given.has(blockIndex))
    for (const blockIndex of wanted) {
      const block = given.get(blockIndex)
      if (block && healBlock(context, stored, { blockIndex, block })) healed++
    }
  }
  return healed
}

/** A block that crossed a thread has lost its class. */
function bufferOf(bytes: Uint8Array | undefined): Buffer | undefined {
  return bytes && Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

function healBlock(
  { catalog, crash, files, log }: ReplicaContext,
  stored: StoredLayer,
  { blockIndex, block }: { blockIndex: number; block: Buffer },
): boolean {
  const { key, path } = stored
  const leaf = stored.group(Math.floor(blockIndex / GROUP_CHILDREN)).leaf(blockIndex % GROUP_CHILDREN)
  if (block.length !== CLUSTER_BYTES || !leafOf(block).equals(leaf)) return false
  const file = files.open(path, 'write')
  try {
    const cluster = lookUpBlock(file, path, blockIndex)
    if (cluster <= 0) return false
    file.write([block], cluster * CLUSTER_BYTES)
    crash('replica.repair-written')
    file.sync()
    crash('replica.repair-synced')
    const again = Buffer.alloc(CLUSTER_BYTES)
    file.read(again, cluster * CLUSTER_BYTES)
    if (!leafOf(again).equals(leaf)) return false
  } catch (error) {
    if (!isDiskError(error)) throw error
    // The place is lost, not the block's neighbours: it counts as one nobody can bring back.
    log.warn('replica.place-lost', { vmId: key.vmId, diskId: key.diskId, seq: key.seq, blockIndex, error })
    return false
  } finally {
    file.close()
  }
  catalog.damage.clearBlock(key, blockIndex)
  log.info('replica.block-healed', { vmId: key.vmId, diskId: key.diskId, seq: key.seq, blockIndex })
  return true
}
