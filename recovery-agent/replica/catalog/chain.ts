import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { DiskId, VmId } from '#shared/ids.ts'
import type { PointRef } from '#shared/messages/commands.ts'

export interface ChainDisk {
  readonly diskId: DiskId
  readonly sizeBytes: number
  readonly root: Buffer
  readonly changedBytes: number
  readonly storedBytes: number
}

/** One member of a VM's chain: a layer file for each of its disks. */
export interface ChainPoint extends PointRef {
  /** base: adopted disks, no point. point: visible. merging: pruned, being merged into the next member. */
  readonly state: 'base' | 'point' | 'merging'
  readonly capturedAtMs: number
  readonly completedAtMs: number
  readonly consistency: 'crash' | 'application'
  readonly pinned: boolean
  readonly disks: readonly ChainDisk[]
}

/** Oldest first. Every member stands on the one before it. */
export type Chain = readonly ChainPoint[]

export function newestSeqOf(chain: Chain): number {
  return chain.findLast((member) => member.state === 'point')?.seq ?? 0
}

/** Numbers start over when the direction is reversed; only together with the epoch they name a point. */
export function isSamePoint(a: PointRef, b: PointRef): boolean {
  return a.epoch === b.epoch && a.seq === b.seq
}

export function findPoint(chain: Chain, ref: PointRef): ChainPoint | undefined {
  return chain.find((member) => member.state === 'point' && isSamePoint(member, ref))
}

/** Throws `point-unknown`. */
export function pointOrThrow(chain: Chain, { vmId, point }: { vmId: VmId; point: PointRef }): ChainPoint {
  const found = findPoint(chain, point)
  if (found) return found
  throw new HotsiteError('point-unknown', `${vmId} has no recovery point ${point.epoch}/${point.seq}`, {
    details: { vmId, point },
  })
}

/**
 * Blocks from `from` up to `to` that a new layer must show as zeros because a layer below the newest one is larger
 * than it: without that, a disk that was shrunk and grows again would show its past.
 */
export function hiddenBytes(
  chain: Chain,
  { diskId, sizeBytes }: { diskId: DiskId; sizeBytes: number },
): { fromBytes: number; toBytes: number } | undefined {
  const sizes = chain.flatMap((member) => member.disks.filter((disk) => disk.diskId === diskId))
  const newest = chain.at(-1)?.disks.find((disk) => disk.diskId === diskId)
  if (!newest || sizeBytes <= newest.sizeBytes) return undefined
  const largest = Math.max(...sizes.map((disk) => disk.sizeBytes))
  if (largest <= newest.sizeBytes) return undefined
  return { fromBytes: newest.sizeBytes, toBytes: Math.min(largest, sizeBytes) }
}
