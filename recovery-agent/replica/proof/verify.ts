/** A verification somebody asked for: every block, or an evenly spread sample of them, then what can be healed here. */
import type { DiskId, VmId } from '#shared/ids.ts'
import { type Rng, seededRng } from '#shared/rng.ts'
import type { Damage } from '../catalog/damage.ts'
import type { ReplicaContext } from '../context.ts'
import { healLocally } from '../healing/heal.ts'
import type { VerifyOutcome, VerifyRequest } from '../port.ts'
import { damagedPointSeqs } from './damaged-points.ts'
import { badBlocksOf, blocksOf, endPass } from './scrub.ts'
import { disksOf } from './stored-layers.ts'
import { BEGINNING, verifyDisk } from './verify-disk.ts'

export function* verifyReplica(
  context: ReplicaContext,
  { vmId, percent, seed, abandonMerge }: VerifyRequest & { readonly abandonMerge: (vmId: VmId) => void },
): Generator<void, VerifyOutcome> {
  context.catalog.lookAgain(vmId)
  // Merges wait, so that what is said of all blocks is said of all blocks.
  using _reading = context.readers.hold(vmId)
  const checked = new Map<DiskId, number>()
  for (const diskId of disksOf(context.catalog.chain(vmId))) {
    let checkedBlocks = 0
    yield* verifyDisk(context, {
      vmId,
      diskId,
      from: BEGINNING,
      isWanted: sampler(percent, seededRng(seed)),
      onChecked: ({ blocks }) => {
        checkedBlocks += blocks
      },
    })
    checked.set(diskId, checkedBlocks)
    if (percent >= 100) endPass(context, vmId, diskId)
  }
  const found = context.catalog.damage.list(vmId)
  yield* healLocally(context, { vmId, abandonMerge })
  const chain = context.catalog.chain(vmId)
  const damaged = damagedPointSeqs(context, vmId, chain)
  const left = context.catalog.damage.list(vmId)
  return {
    disks: [...checked].map(([diskId, checkedBlocks]) => ({
      diskId,
      checkedBlocks,
      totalBlocks: blocksOf(context, vmId, diskId),
      badBlocks: badBlocksOf(context, left, diskId),
      healedBlocks: Math.max(0, singleBlocks(found, diskId) - singleBlocks(left, diskId)),
      healedLayers: Math.max(0, wholeLayers(found, diskId) - wholeLayers(left, diskId)),
    })),
    damagedPoints: chain
      .filter(({ state, seq }) => state === 'point' && damaged.has(seq))
      .map(({ epoch, seq }) => ({ epoch, seq })),
  }
}

function singleBlocks(damages: readonly Damage[], diskId: DiskId): number {
  return damages.reduce((sum, damage) => sum + (damage.diskId === diskId ? damage.blockIndexes.length : 0), 0)
}

function wholeLayers(damages: readonly Damage[], diskId: DiskId): number {
  return damages.filter((damage) => damage.diskId === diskId && damage.groupIndex === null).length
}

/** One block of each row of 100/percent blocks, anywhere in it: spread evenly, and never the same ones twice by design. */
export function sampler(percent: number, rng: Rng): () => boolean {
  if (percent >= 100) return () => true
  const rowBlocks = 100 / percent
  let at = 0
  let rowEnd = rowBlocks
  let chosen = Math.floor(rng.next() * rowBlocks)
  return () => {
    if (at >= rowEnd) {
      chosen = Math.floor(rowEnd + rng.next() * rowBlocks)
      rowEnd += rowBlocks
    }
    return at++ === chosen
  }
}
