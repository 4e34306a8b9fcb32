/**
 * Copies of disks that a snapshot is read from while the VM writes on. A reflink costs milliseconds; where the file
 * system has none, the bulk is copied while the VM still runs and may be torn, and only once the VM stands still is
 * every chunk compared and what differs put right. So the VM waits for a comparison (memory speed), not for a copy.
 */
import { constants, copyFileSync, fstatSync, ftruncateSync, openSync, rmSync, writeSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { setImmediate as yieldToOthers } from 'node:timers/promises'
import type { DataMap } from '../data-map.ts'
import type { Extent } from '../port.ts'
import { closeDisks, type OpenDisk, readFully } from './open-disks.ts'

const CHUNK_BYTES = 1024 * 1024

export const copyPath = (dir: string, disk: OpenDisk) => join(dir, `${disk.diskId.replaceAll(':', '_')}.img`)

/** Remembers for each folder that holds disks whether its file system can. */
export class Reflinks {
  readonly #impossible = new Set<string>()

  possible(disks: readonly OpenDisk[]): boolean {
    return disks.every((disk) => !this.#impossible.has(dirname(disk.path)))
  }

  /** The copies, or undefined when the file system cannot. */
  take(disks: readonly OpenDisk[], dir: string): OpenDisk[] | undefined {
    const copies: OpenDisk[] = []
    for (const disk of disks) {
      const path = copyPath(dir, disk)
      try {
        copyFileSync(disk.path, path, constants.COPYFILE_FICLONE_FORCE)
        copies.push({ ...disk, path, fd: openSync(path, 'r') })
      } catch (error) {
        closeDisks(copies)
        for (const started of disks) rmSync(copyPath(dir, started), { force: true })
        if (!cannotClone(error)) throw error
        this.#impossible.add(dirname(disk.path))
        return undefined
      }
    }
    return copies
  }
}

const cannotClone = (error: unknown) =>
  ['ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EXDEV', 'EINVAL', 'ENOTTY'].includes(
    (error as NodeJS.ErrnoException).code ?? '',
  )

/** An empty sparse file for each disk. */
export function createCopies(disks: readonly OpenDisk[], dir: string): OpenDisk[] {
  const copies: OpenDisk[] = []
  try {
    for (const disk of disks) {
      const path = copyPath(dir, disk)
      copies.push({ ...disk, path, fd: openSync(path, 'wx+', 0o600) })
    }
    return copies
  } catch (error) {
    closeDisks(copies)
    throw error
  }
}

/** In turns with everything else of its thread: a big disk takes minutes, and nothing waits for it. */
export async function copyData(source: OpenDisk, copy: OpenDisk, dataMap: DataMap): Promise<void> {
  const sizeBytes = fstatSync(source.fd).size
  const chunk = Buffer.allocUnsafe(CHUNK_BYTES)
  ftruncateSync(copy.fd, sizeBytes)
  for (const piece of piecesOf(dataMap(source.fd, sizeBytes))) {
    const bytes = chunk.subarray(0, piece.lengthBytes)
    readFully(source.fd, bytes, piece.offsetBytes)
    writeFully(copy.fd, bytes, piece.offsetBytes)
    await yieldToOthers()
  }
}

/** The source standing still: makes the copy equal to it, and answers where it holds data. `guard` throws to end it. */
export function reconcileCopy(
  source: OpenDisk,
  copy: OpenDisk,
  dataMap: DataMap,
  guard: () => void,
): Extent[] {
  const sizeBytes = fstatSync(source.fd).size
  ftruncateSync(copy.fd, sizeBytes)
  const sourceMap = dataMap(source.fd, sizeBytes)
  const theirs = Buffer.allocUnsafe(CHUNK_BYTES)
  const ours = Buffer.allocUnsafe(CHUNK_BYTES)
  // What the copy holds beyond the source's data was freed there since; it reads as zeros.
  const stale = subtractExtents(dataMap(copy.fd, sizeBytes), sourceMap)
  for (const piece of piecesOf([...sourceMap, ...stale])) {
    guard()
    const wanted = theirs.subarray(0, piece.lengthBytes)
    const present = ours.subarray(0, piece.lengthBytes)
    readFully(source.fd, wanted, piece.offsetBytes)
    readFully(copy.fd, present, piece.offsetBytes)
    if (!wanted.equals(present)) writeFully(copy.fd, wanted, piece.offsetBytes)
  }
  return sourceMap
}

/** Both ascending and free of overlaps. */
export function subtractExtents(from: readonly Extent[], removed: readonly Extent[]): Extent[] {
  const left: Extent[] = []
  let next = 0
  for (const extent of from) {
    let start = extent.offsetBytes
    const end = start + extent.lengthBytes
    for (;;) {
      const hole = removed[next]
      if (!hole || hole.offsetBytes >= end) break
      if (hole.offsetBytes > start) left.push({ offsetBytes: start, lengthBytes: hole.offsetBytes - start })
      start = Math.max(start, hole.offsetBytes + hole.lengthBytes)
      if (start >= end) break
      next++
    }
    if (start < end) left.push({ offsetBytes: start, lengthBytes: end - start })
  }
  return left
}

function* piecesOf(extents: readonly Extent[]): Generator<Extent> {
  for (const { offsetBytes, lengthBytes } of extents) {
    for (let done = 0; done < lengthBytes; done += CHUNK_BYTES) {
      yield { offsetBytes: offsetBytes + done, lengthBytes: Math.min(CHUNK_BYTES, lengthBytes - done) }
    }
  }
}

function writeFully(fd: number, bytes: Buffer, offsetBytes: number): void {
  let written = 0
  while (written < bytes.length) {
    written += writeSync(fd, bytes, written, bytes.length - written, offsetBytes + written)
  }
}
