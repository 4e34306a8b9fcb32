/**
 * The rolling proof: all stored blocks of a replica are read again, a little at a time, for ever. How far it came is a
 * row for each disk, so a restart goes on where the last life stopped; a row that does not hold starts its disk over.
 */
import { crc32 } from 'node:zlib'
import type { DiskId, VmId } from '#shared/ids.ts'
import type { DiskProof } from '#shared/messages/reports.ts'
import type { ScrubRow } from '../catalog/catalog.ts'
import type { Damage } from '../catalog/damage.ts'
import type { ReplicaContext } from '../context.ts'
import type { ScrubSlice } from '../port.ts'
import { disksOf } from './stored-layers.ts'
import { BEGINNING, type Cursor, verifyDisk } from './verify-disk.ts'

/** The walk over one VM that goes on in this life. */
export class Scrub {
  readonly #context: ReplicaContext
  readonly #vmId: VmId
  #work: Generator<void, void> | undefined
  #checkedBlocks = 0

  constructor(context: ReplicaContext, vmId: VmId) {
    this.#context = context
    this.#vmId = vmId
  }

  /** Reads for about so long. */
  slice(budgetMs: number): ScrubSlice {
    const { clock } = this.#context
    const untilMs = clock.monotonicMs() + budgetMs
    const before = damageCount(this.#context, this.#vmId)
    this.#checkedBlocks = 0
    this.#work ??= this.#pass()
    let passEnded = false
    do passEnded = this.#work.next().done === true
    while (!passEnded && clock.monotonicMs() < untilMs)
    if (passEnded) this.#work = undefined
    return {
      checkedBlocks: this.#checkedBlocks,
      totalBlocks: totalOf(this.#context, this.#vmId),
      passEnded,
      foundDamage: damageCount(this.#context, this.#vmId) > before,
    }
  }

  stop(): void {
    this.#work?.return()
    this.#work = undefined
  }

  /** What is left of the pass of each disk; a disk whose pass has ended begins another one when all have. */
  *#pass(): Generator<void, void> {
    const { catalog } = this.#context
    const vmId = this.#vmId
    catalog.lookAgain(vmId)
    const disks = disksOf(catalog.chain(vmId))
    const isOver = (diskId: DiskId) => this.#row(diskId).cursor === null
    if (disks.every(isOver)) for (const diskId of disks) this.#begin(diskId)
    for (const diskId of disks) {
      const row = this.#row(diskId)
      if (row.cursor === null) continue
      let { checkedBlocks } = row
      yield* verifyDisk(this.#context, {
        vmId,
        diskId,
        from: row.cursor,
        isWanted: () => true,
        onChecked: ({ blocks, next }) => {
          checkedBlocks += blocks
          this.#checkedBlocks += blocks
          putPass(this.#context, vmId, diskId, { ...row, checkedBlocks, cursor: next })
        },
      })
      endPass(this.#context, vmId, diskId)
    }
  }

  #begin(diskId: DiskId): void {
    const { provedAtMs } = this.#row(diskId)
    const beganAtMs = this.#context.clock.now()
    const pass = { checkedBlocks: 0, cursor: BEGINNING, beganAtMs, provedAtMs }
    putPass(this.#context, this.#vmId, diskId, pass)
  }

  #row(diskId: DiskId): Pass {
    return passOf(this.#context, this.#vmId, diskId)
  }
}

/** Every block of the disk was read: the pass that goes on is over, and whoever walks it begins another one. */
export function endPass(context: ReplicaContext, vmId: VmId, diskId: DiskId): void {
  const pass = passOf(context, vmId, diskId)
  putPass(context, vmId, diskId, { ...pass, cursor: null, provedAtMs: context.clock.now() })
}

function putPass(
  { catalog }: ReplicaContext,
  vmId: VmId,
  diskId: DiskId,
  { checkedBlocks, cursor, beganAtMs, provedAtMs }: Pass,
): void {
  const { seq, groupIndex } = cursor ?? OVER
  const row = { vmId, diskId, seq, groupIndex, checkedBlocks, beganAtMs, provedAtMs }
  catalog.putScrub({ ...row, checksum: checksumOf(row) })
}

interface Pass {
  /** null: it is over. */
  readonly cursor: Cursor | null
  readonly checkedBlocks: number
  readonly beganAtMs: number
  readonly provedAtMs: number | null
}

/** The cursor of a pass that is over. */
const OVER: Cursor = { seq: -2, groupIndex: 0 }

function passOf({ catalog, clock }: ReplicaContext, vmId: VmId, diskId: DiskId): Pass {
  const row = catalog.scrub(vmId, diskId)
  if (!row || row.checksum !== checksumOf(row))
    return { cursor: BEGINNING, checkedBlocks: 0, beganAtMs: clock.now(), provedAtMs: null }
  const { seq, groupIndex, checkedBlocks, beganAtMs, provedAtMs } = row
  return { cursor: seq === OVER.seq ? null : { seq, groupIndex }, checkedBlocks, beganAtMs, provedAtMs }
}

function checksumOf({
  vmId,
  diskId,
  seq,
  groupIndex,
  checkedBlocks,
  beganAtMs,
  provedAtMs,
}: Omit<ScrubRow, 'checksum'>) {
  return crc32(JSON.stringify([vmId, diskId, seq, groupIndex, checkedBlocks, beganAtMs, provedAtMs]))
}

/** What is known of each disk of the newest point. */
export function proofOf(context: ReplicaContext, vmId: VmId): DiskProof[] {
  const { catalog } = context
  const newest = catalog.chain(vmId).findLast(({ state }) => state === 'point')
  const damages = catalog.damage.list(vmId)
  return (newest?.disks ?? []).map(({ diskId, sizeBytes }) => {
    const { cursor, checkedBlocks, provedAtMs } = passOf(context, vmId, diskId)
    const total = blocksOf(context, vmId, diskId)
    const badBlocks = badBlocksOf(context, damages, diskId)
    const percent = cursor === null || total === 0 ? 100 : Math.min(100, (checkedBlocks / total) * 100)
    return { diskId, sizeBytes, percent, provedAtMs, badBlocks }
  })
}

export function badBlocksOf(context: ReplicaContext, damages: readonly Damage[], diskId: DiskId): number {
  return damages
    .filter((damage) => damage.diskId === diskId)
    .reduce(
      (sum, damage) =>
        sum + (damage.groupIndex === null ? wholeCount(context, damage) : damage.blockIndexes.length),
      0,
    )
}

/** All of a layer of which no block can be trusted; one at least, when not even its number of blocks is known. */
function wholeCount(context: ReplicaContext, key: Parameters<typeof factsOrNone>[1]): number {
  return Math.max(1, factsOrNone(context, key)?.blockCount ?? 1)
}

function factsOrNone({ catalog }: ReplicaContext, key: { vmId: VmId; diskId: DiskId; seq: number }) {
  try {
    return catalog.layerLeaves.facts(key)
  } catch {
    return undefined
  }
}

/** In all layers, from rows alone: it is asked after every slice. */
export function blocksOf(context: ReplicaContext, vmId: VmId, diskId: DiskId): number {
  return context.catalog
    .chain(vmId)
    .filter(({ disks }) => disks.some((disk) => disk.diskId === diskId))
    .reduce((sum, { seq }) => sum + (factsOrNone(context, { vmId, diskId, seq })?.blockCount ?? 0), 0)
}

function totalOf(context: ReplicaContext, vmId: VmId): number {
  return disksOf(context.catalog.chain(vmId)).reduce((sum, disk) => sum + blocksOf(context, vmId, disk), 0)
}

function damageCount({ catalog }: ReplicaContext, vmId: VmId): number {
  return catalog.damage.list(vmId).length
}
