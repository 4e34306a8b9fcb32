/**
 * Real files on a disk that loses power: after `losePower`, each 4 KiB sector written since the last sync of its file
 * is what it was then, or what was written, by chance. Names are kept: file systems order those themselves, and
 * `syncFolder` is counted on for that.
 */
import { closeSync, openSync, readSync, writeSync } from 'node:fs'
import type { BlockFile } from '#shared/formats/block-file.ts'
import type { Rng } from '#shared/rng.ts'
import { nodeFiles, type ReplicaFiles } from '../files.ts'

const SECTOR_BYTES = 4096

interface Unsynced {
  readonly sectors: Map<number, Buffer>
}

export interface LosingFiles extends ReplicaFiles {
  losePower(rng: Rng): void
  /** Writes fail with ENOSPC once this many bytes were written; undefined: never. */
  limitWrites(bytes: number | undefined): void
}

export function losingFiles(): LosingFiles {
  const unsynced = new Map<string, Unsynced>()
  let leftBytes: number | undefined

  const wrap = (path: string, file: BlockFile): BlockFile => {
    const state = unsynced.get(path) ?? { sectors: new Map<number, Buffer>() }
    unsynced.set(path, state)
    const remember = (offsetBytes: number, lengthBytes: number) => {
      const last = Math.ceil((offsetBytes + lengthBytes) / SECTOR_BYTES)
      for (let sector = Math.floor(offsetBytes / SECTOR_BYTES); sector < last; sector++) {
        if (state.sectors.has(sector)) continue
        const before = Buffer.alloc(SECTOR_BYTES)
        file.read(before, sector * SECTOR_BYTES)
        state.sectors.set(sector, before)
      }
    }
    return {
      read: (target, offsetBytes) => file.read(target, offsetBytes),
      write(buffers, offsetBytes) {
        const bytes = buffers.reduce((sum, buffer) => sum + buffer.length, 0)
        if (leftBytes !== undefined) leftBytes -= bytes
        if (leftBytes !== undefined && leftBytes < 0) {
          throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' })
        }
        remember(offsetBytes, bytes)
        file.write(buffers, offsetBytes)
      },
      sync() {
        file.sync()
        state.sectors.clear()
      },
      truncate: (sizeBytes) => file.truncate(sizeBytes),
      sizeBytes: () => file.sizeBytes(),
      punchHole: (offsetBytes, lengthBytes) => file.punchHole(offsetBytes, lengthBytes),
      close: () => file.close(),
    }
  }

  return {
    ...nodeFiles,
    open(path, mode) {
      if (mode === 'create') unsynced.delete(path)
      return wrap(path, nodeFiles.open(path, mode))
    },
    rename(from, to) {
      nodeFiles.rename(from, to)
      const state = unsynced.get(from)
      unsynced.delete(from)
      if (state) unsynced.set(to, state)
      else unsynced.delete(to)
    },
    remove(path) {
      nodeFiles.remove(path)
      unsynced.delete(path)
    },
    losePower(rng) {
      for (const [path, { sectors }] of unsynced) revert(path, sectors, rng)
      unsynced.clear()
    },
    limitWrites(bytes) {
      leftBytes = bytes
    },
  }
}

function revert(path: string, sectors: ReadonlyMap<number, Buffer>, rng: Rng): void {
  if (sectors.size === 0 || !nodeFiles.exists(path)) return
  const fd = openSync(path, 'r+')
  try {
    for (const [sector, before] of sectors) {
      if (rng.next() < 0.5) continue
      const now = Buffer.alloc(SECTOR_BYTES)
      const bytes = readSync(fd, now, 0, SECTOR_BYTES, sector * SECTOR_BYTES)
      writeSync(fd, before, 0, bytes, sector * SECTOR_BYTES)
    }
  } finally {
    closeSync(fd)
  }
}
