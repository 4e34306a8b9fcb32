/**
 * A guest and the truth about it. Every write goes to a block of one disk, then the number of the write to block 0 of
 * the first disk, then to block 0 of the last: at any instant n(last) <= n(first) <= n(last) + 1 (order kept, all
 * disks at one instant). Blocks are never changed in place, so a snapshot is a copy of the maps.
 */
import { BLOCK_BYTES, blockCountOf } from '#shared/blocks/block.ts'
import { type DiskId, diskId, type FabricVmId, type VmId } from '#shared/ids.ts'
import { intBelow, type Rng } from '#shared/rng.ts'

export interface DiskImage {
  readonly diskId: DiskId
  readonly sizeBytes: number
  /** Blocks that are not known to be zero. */
  readonly blocks: ReadonlyMap<number, Buffer>
}

interface GuestDisk {
  readonly diskId: DiskId
  sizeBytes: number
  blocks: Map<number, Buffer>
  /** Number of the last change of each block, of this guest's changes. */
  touched: Map<number, number>
  /** The same of its writes alone: a tracker does not see what a new size does. */
  written: Map<number, number>
  /** Each time it got smaller: at which change, and to what. */
  readonly shrinks: { readonly change: number; readonly sizeBytes: number }[]
}

/** The disks of a guest at one instant. */
export interface Instant {
  readonly atMs: number
  /** Changes up to here are in it. */
  readonly change: number
  readonly disks: readonly DiskImage[]
}

export type Load = 'none' | 'cold' | 'hot' | 'zeroing'

const noise = Buffer.alloc(BLOCK_BYTES * 2)

/** Incompressible bytes, the same in every history. */
function fillNoise(): void {
  let state = 0x9e3779b9
  for (let at = 0; at < noise.length; at += 4) {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) >>> 0
    noise.writeUInt32LE(state, at)
  }
}
fillNoise()

export class Guest {
  readonly vmId: VmId
  readonly fabricVmId: FabricVmId
  load: Load = 'cold'
  /** A VM that was failed over writes no more here. */
  isOff = false
  readonly #rng: Rng
  readonly #disks: GuestDisk[] = []
  #lastDiskNumber = 0
  #change = 0
  #writes = 0

  constructor(options: { vmId: VmId; fabricVmId: FabricVmId; rng: Rng }) {
    this.vmId = options.vmId
    this.fabricVmId = options.fabricVmId
    this.#rng = options.rng
  }

  get disks(): readonly DiskImage[] {
    return this.#disks
  }

  /** Grows with every change. */
  get change(): number {
    return this.#change
  }

  addDisk(sizeBytes: number): DiskId {
    const id = diskId.parse(`d${this.#lastDiskNumber++}`)
    this.#disks.splice(Math.max(0, this.#disks.length - 1), 0, {
      diskId: id,
      sizeBytes,
      blocks: new Map(),
      touched: new Map(),
      written: new Map(),
      shrinks: [],
    })
    this.#change++
    return id
  }

  /** The image of another site becomes a disk here. */
  adopt(image: DiskImage): void {
    const blocks = new Map(image.blocks)
    this.#disks.push({ ...image, blocks, touched: new Map(), written: new Map(), shrinks: [] })
    this.#lastDiskNumber = Math.max(this.#lastDiskNumber, Number(image.diskId.slice(1)) + 1)
    this.#change++
    const disk = this.#disks.at(-1)
    for (const block of image.blocks.keys()) disk?.touched.set(block, this.#change)
  }

  /** Never the first or the last: they hold the numbers. */
  removeDisk(): boolean {
    if (this.#disks.length < 3) return false
    this.#disks.splice(1, 1)
    this.#change++
    return true
  }

  resize(disk: DiskId, sizeBytes: number): void {
    const found = this.#disks.find(({ diskId: id }) => id === disk)
    if (!found) return
    this.#change++
    const last = Math.floor(sizeBytes / BLOCK_BYTES)
    for (const index of [...found.blocks.keys()])
      if (index >= blockCountOf(sizeBytes)) this.#set(found, index, undefined)
    const cut = found.blocks.get(last)
    if (cut && sizeBytes < found.sizeBytes) {
      const kept = Buffer.from(cut)
      kept.fill(0, sizeBytes % BLOCK_BYTES)
      this.#set(found, last, kept)
    }
    if (sizeBytes < found.sizeBytes) found.shrinks.push({ change: this.#change, sizeBytes })
    found.sizeBytes = sizeBytes
  }

  /** One write, or what of it was done when somebody looks between its steps. */
  write(): void {
    if (this.isOff || this.load === 'none') return
    const first = this.#disks[0]
    const last = this.#disks.at(-1)
    const target = this.#disks[intBelow(this.#rng, this.#disks.length)]
    if (!first || !last || !target) return
    this.#writes++
    const blocks = blockCountOf(target.sizeBytes)
    const span = this.load === 'hot' ? Math.min(6, blocks) : blocks
    const index = 1 + intBelow(this.#rng, Math.max(1, span - 1))
    if (index < blocks) {
      this.#change++
      const zeroes = this.#rng.next() < (this.load === 'zeroing' ? 0.7 : 0.1)
      this.#write(target, index, zeroes ? this.#zero() : this.#content(target, index))
    }
    this.#number(first)
    if (last !== first) this.#number(last)
  }

  /** Leaves the two numbers one apart: what a capture may see. */
  writeHalf(): void {
    const first = this.#disks[0]
    const last = this.#disks.at(-1)
    if (!first || !last || this.isOff || this.#disks.length < 2) return
    this.#number(last)
    this.#writes++
    this.#number(first)
  }

  instant(atMs: number): Instant {
    return {
      atMs,
      change: this.#change,
      disks: this.#disks.map(({ diskId: id, sizeBytes, blocks }) => ({
        diskId: id,
        sizeBytes,
        blocks: new Map(blocks),
      })),
    }
  }

  /** Blocks of the disks there are now that changed after `change`: as many may travel, and no more. */
  touchedSince(change: number): number {
    let count = 0
    for (const disk of this.#disks)
      for (const [index, at] of disk.touched) if (at > change && index < blockCountOf(disk.sizeBytes)) count++
    return count
  }

  /** What a tracker would say: what was written, and what was cut off since if the disk grew again. */
  writtenBlocks(disk: DiskId, change: number): number[] {
    const found = this.#disks.find(({ diskId: id }) => id === disk)
    if (!found) return []
    const shrinks = found.shrinks.filter(
      (shrink) => shrink.change > change && shrink.sizeBytes < found.sizeBytes,
    )
    const isCut = (index: number) =>
      shrinks.some(({ sizeBytes }) => index >= Math.floor(sizeBytes / BLOCK_BYTES))
    return [...found.touched].flatMap(([index, at]) =>
      at > change && (isCut(index) || (found.written.get(index) ?? 0) > change) ? [index] : [],
    )
  }

  /** Undefined: it reads as zeros and nothing is allocated there. */
  #zero(): Buffer | undefined {
    return this.#rng.next() < 0.5 ? undefined : Buffer.alloc(BLOCK_BYTES)
  }

  #content(disk: GuestDisk, index: number): Buffer {
    const block = Buffer.allocUnsafeSlow(BLOCK_BYTES)
    if (this.#rng.next() < 0.3) noise.copy(block, 0, intBelow(this.#rng, BLOCK_BYTES))
    else block.fill(intBelow(this.#rng, 255) + 1)
    block.writeUInt32LE(this.#writes, 0)
    block.writeUInt32LE(intBelow(this.#rng, 2 ** 32), BLOCK_BYTES / 2)
    return trimmed(block, disk.sizeBytes - index * BLOCK_BYTES)
  }

  #number(disk: GuestDisk): void {
    this.#change++
    const block = Buffer.from(disk.blocks.get(0) ?? Buffer.alloc(BLOCK_BYTES))
    block.writeUInt32LE(this.#writes, 0)
    this.#write(disk, 0, block)
  }

  #write(disk: GuestDisk, index: number, content: Buffer | undefined): void {
    disk.written.set(index, this.#change)
    this.#set(disk, index, content)
  }

  #set(disk: GuestDisk, index: number, content: Buffer | undefined): void {
    disk.touched.set(index, this.#change)
    if (content) disk.blocks.set(index, content)
    else disk.blocks.delete(index)
  }
}

function trimmed(block: Buffer, insideBytes: number): Buffer {
  if (insideBytes < BLOCK_BYTES) block.fill(0, insideBytes)
  return block
}

/** Fills `target` from a disk image; past its end with zeros. Offsets are whole blocks, as the engine reads. */
export function readImage(image: DiskImage, target: Buffer, offsetBytes: number): void {
  for (let at = 0; at < target.length; at += BLOCK_BYTES) {
    const piece = target.subarray(at, at + BLOCK_BYTES)
    const block = image.blocks.get((offsetBytes + at) / BLOCK_BYTES)
    if (block) block.copy(piece, 0, 0, piece.length)
    else piece.fill(0)
  }
}

/** What is wrong with the numbers of one state of the guest; undefined: nothing. */
export function orderViolation(disks: readonly DiskImage[]): string | undefined {
  const number = (disk: DiskImage | undefined) => disk?.blocks.get(0)?.readUInt32LE(0) ?? 0
  const first = number(disks[0])
  const last = number(disks.at(-1))
  return last <= first && first <= last + 1 ? undefined : `disk numbers ${first} and ${last}: order broken`
}
