/** A small HostHypervisor over real files, for the tests of the capture engine. Nothing runs on them meanwhile. */
import { closeSync, ftruncateSync, openSync, readFileSync, readSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { BLOCK_BYTES, blockCountOf } from '#shared/blocks/block.ts'
import { type DiskId, diskId, type FabricVmId } from '#shared/ids.ts'
import { openDataMap, openNextData } from '../../hypervisor/data-map.ts'
import type {
  Extent,
  HostHypervisor,
  Snapshot,
  SnapshotDisk,
  SnapshotRequest,
} from '../../hypervisor/port.ts'

export interface FileDisk {
  readonly diskId: DiskId
  readonly path: string
  sizeBytes: number
}

export class FileHypervisor implements HostHypervisor {
  readonly overlayFormat = 'raw'
  readonly disksOfVm: FileDisk[] = []
  readonly released: number[] = []
  readonly holds: SnapshotRequest['hold'][] = []
  readonly #dir: string
  readonly #dataMap = openDataMap()
  readonly #nextData = openNextData()
  /** Written since `clearTracked`, for the tracked mode. */
  readonly #tracked = new Map<DiskId, Extent[]>()
  /** Blocks given back to the file system, as far as readers can tell. */
  readonly #discarded = new Map<DiskId, Set<number>>()
  mode: 'scan' | 'tracked' = 'scan'
  /** The next snapshots report that they did not hold. */
  tornSnapshots = 0
  openSnapshots = 0
  recoveries = 0
  readBytes = 0
  /** How often somebody asked where all the data of a disk is, and where the next is. */
  allocationLists = 0
  allocationSteps = 0
  nowMs = 1_700_000_000_000
  /** Called for every read, to change the world meanwhile. */
  onRead: () => void = () => {}

  constructor(dir: string) {
    this.#dir = dir
  }

  /** Knows the file if it is there already. */
  addDisk(name: string, sizeBytes: number): FileDisk {
    const disk = { diskId: diskId.parse(name), path: join(this.#dir, `${name}.raw`), sizeBytes }
    const fd = openSync(disk.path, 'a')
    ftruncateSync(fd, sizeBytes)
    closeSync(fd)
    this.disksOfVm.push(disk)
    return disk
  }

  removeDisk(index: number): void {
    this.disksOfVm.splice(index, 1)
  }

  resize(disk: FileDisk, sizeBytes: number): void {
    const fd = openSync(disk.path, 'r+')
    ftruncateSync(fd, sizeBytes)
    closeSync(fd)
    disk.sizeBytes = sizeBytes
  }

  write(disk: FileDisk, offsetBytes: number, bytes: Buffer): void {
    this.writeUnseen(disk, offsetBytes, bytes)
    this.#touched(disk, { offsetBytes, lengthBytes: bytes.length })
  }

  /** A write that the tracker misses. */
  writeUnseen(disk: FileDisk, offsetBytes: number, bytes: Buffer): void {
    const fd = openSync(disk.path, 'r+')
    writeSync(fd, bytes, 0, bytes.length, offsetBytes)
    closeSync(fd)
  }

  /** Whole blocks become unallocated. */
  discard(disk: FileDisk, firstBlock: number, count: number): void {
    const end = Math.min(firstBlock + count, blockCountOf(disk.sizeBytes))
    const lengthBytes = Math.min(end * BLOCK_BYTES, disk.sizeBytes) - firstBlock * BLOCK_BYTES
    if (lengthBytes <= 0) return
    this.write(disk, firstBlock * BLOCK_BYTES, Buffer.alloc(lengthBytes))
    const discarded = this.#discarded.get(disk.diskId) ?? new Set()
    for (let block = firstBlock; block < end; block++) discarded.add(block)
    this.#discarded.set(disk.diskId, discarded)
  }

  /** The target holds everything: the tracker starts anew. */
  clearTracked(): void {
    this.#tracked.clear()
  }

  content(disk: FileDisk): Buffer {
    return readFileSync(disk.path)
  }

  async recover(): Promise<void> {
    this.recoveries++
  }

  async disks(): Promise<readonly { diskId: DiskId; name: string; sizeBytes: number }[]> {
    return this.disksOfVm.map(({ diskId, sizeBytes }) => ({ diskId, name: diskId, sizeBytes }))
  }

  async openSnapshot({ hold }: SnapshotRequest): Promise<Snapshot> {
    this.holds.push(hold)
    this.openSnapshots++
    const opened = this.disksOfVm.map((disk) => this.#openDisk(disk))
    return {
      capturedAtMs: ++this.nowMs,
      consistency: 'crash',
      disks: opened.map(({ disk }) => disk),
      freezeMs: () => 1,
      close: () => {
        this.openSnapshots--
        for (const { fd } of opened) closeSync(fd)
        return { intact: this.tornSnapshots-- <= 0 }
      },
    }
  }

  async release(_vm: FabricVmId, seq: number): Promise<void> {
    this.released.push(seq)
  }

  #openDisk({ diskId, path, sizeBytes }: FileDisk): { fd: number; disk: SnapshotDisk } {
    const fd = openSync(path, 'r')
    const changes =
      this.mode === 'scan'
        ? { kind: 'scan' as const, reason: 'no tracker' }
        : { kind: 'tracked' as const, extents: this.#tracked.get(diskId) ?? [] }
    const read = (target: Buffer, offsetBytes: number) => {
      this.onRead()
      this.readBytes += target.length
      target.fill(0, readSync(fd, target, 0, target.length, offsetBytes))
    }
    const allocated = () => this.#allocated(fd, diskId, sizeBytes)
    const next = (offsetBytes: number) => {
      this.allocationSteps++
      return this.#nextData(fd, offsetBytes, sizeBytes)
    }
    // Step by step only where the file itself knows: what was discarded for readers alone is in the list.
    const steps = this.mode === 'tracked' && !this.#discarded.get(diskId)?.size ? { nextData: next } : {}
    const disk: SnapshotDisk = {
      diskId,
      sizeBytes,
      changes,
      get allocated() {
        return allocated()
      },
      read,
      ...steps,
    }
    return { fd, disk }
  }

  #allocated(fd: number, disk: DiskId, sizeBytes: number): Extent[] {
    this.allocationLists++
    const discarded = this.#discarded.get(disk)
    const extents = this.#dataMap(fd, sizeBytes)
    if (!discarded?.size) return extents
    return extents.flatMap(({ offsetBytes, lengthBytes }) => {
      const kept: Extent[] = []
      for (let at = offsetBytes; at < offsetBytes + lengthBytes; ) {
        const next = Math.min(offsetBytes + lengthBytes, (Math.floor(at / BLOCK_BYTES) + 1) * BLOCK_BYTES)
        if (!discarded.has(Math.floor(at / BLOCK_BYTES)))
          kept.push({ offsetBytes: at, lengthBytes: next - at })
        at = next
      }
      return kept
    })
  }

  #touched(disk: FileDisk, extent: Extent): void {
    this.#tracked.set(disk.diskId, [...(this.#tracked.get(disk.diskId) ?? []), extent])
    const first = Math.floor(extent.offsetBytes / BLOCK_BYTES)
    const end = Math.ceil((extent.offsetBytes + extent.lengthBytes) / BLOCK_BYTES)
    for (let block = first; block < end; block++) this.#discarded.get(disk.diskId)?.delete(block)
  }
}
