import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { DiskId } from '#shared/ids.ts'
import type { DataMap } from '../data-map.ts'
import type { Extent, SnapshotDisk } from '../port.ts'

/** A disk image open for reading: the live file, or a copy of it. */
export interface OpenDisk {
  readonly diskId: DiskId
  readonly path: string
  readonly fd: number
  readonly sizeBytes: number
}

export function openDisks(disks: readonly { diskId: DiskId; path: string }[]): OpenDisk[] {
  const opened: OpenDisk[] = []
  try {
    for (const { diskId, path } of disks) {
      const fd = openSync(path, constants.O_RDONLY)
      opened.push({ diskId, path, fd, sizeBytes: 0 })
    }
    return opened
  } catch (error) {
    closeDisks(opened)
    throw new HotsiteError('disk-missing', `cannot open a disk: ${(error as Error).message}`, {
      cause: error,
    })
  }
}

/** Sizes as they are now, the VM standing still: a disk may have been resized a moment ago (I6). */
export function measured(disks: readonly OpenDisk[]): OpenDisk[] {
  return disks.map((disk) => ({ ...disk, sizeBytes: fstatSync(disk.fd).size }))
}

export function closeDisks(disks: readonly OpenDisk[]): void {
  for (const disk of disks) closeSync(disk.fd)
}

/** Fills `target`; what lies past the end of the file is zeros. */
export function readFully(fd: number, target: Buffer, offsetBytes: number): void {
  let filled = 0
  while (filled < target.length) {
    const bytes = readSync(fd, target, filled, target.length - filled, offsetBytes + filled)
    if (bytes === 0) break
    filled += bytes
  }
  target.fill(0, filled)
}

export function snapshotDisk(disk: OpenDisk, allocated: readonly Extent[]): SnapshotDisk {
  return {
    diskId: disk.diskId,
    sizeBytes: disk.sizeBytes,
    changes: { kind: 'scan', reason: 'folder VMs have no change tracker' },
    allocated,
    read: (target, offsetBytes) => readFully(disk.fd, target, offsetBytes),
  }
}

export const snapshotDisks = (disks: readonly OpenDisk[], dataMap: DataMap): SnapshotDisk[] =>
  disks.map((disk) => snapshotDisk(disk, dataMap(disk.fd, disk.sizeBytes)))
