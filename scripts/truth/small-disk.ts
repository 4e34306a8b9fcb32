/** A file system of a few MiB, for what happens when it is full. */
import { spawnSync } from 'node:child_process'
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmdirSync,
  rmSync,
  statfsSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export interface SmallDisk extends Disposable {
  readonly path: string
  /** Takes all room but so much. */
  fill(leaveBytes?: number): void
  /** Gives the room back. */
  relieve(): void
  grow(sizeMiB: number): void
}

/** Whether this user may mount file systems: root may, outside of most containers. */
export function mayMount(): boolean {
  if (process.getuid?.() !== 0) return false
  const dir = mkdtempSync(join(tmpdir(), 'hotsite-mount-'))
  const isMounted = spawnSync('mount', ['-t', 'tmpfs', 'tmpfs', dir]).status === 0
  if (isMounted) spawnSync('umount', [dir])
  rmdirSync(dir)
  return isMounted
}

/** On `path`, which is made. */
export function mountSmallDisk(path: string, sizeMiB: number): SmallDisk {
  mkdirSync(path, { recursive: true, mode: 0o700 })
  mount(path, `size=${sizeMiB}m,mode=700`)
  const filler = join(path, 'filler')
  const disk: SmallDisk = {
    path,
    fill(leaveBytes = 0) {
      disk.relieve()
      const { bavail, bsize } = statfsSync(path)
      const fd = openSync(filler, 'w')
      const piece = Buffer.alloc(bsize, 1)
      try {
        for (let left = bavail * bsize - leaveBytes; left > 0; left -= bsize) writeSync(fd, piece)
      } catch (error) {
        // Somebody else took the rest meanwhile: full is what was wanted.
        if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error
      } finally {
        closeSync(fd)
      }
    },
    relieve() {
      rmSync(filler, { force: true })
    },
    grow(newMiB) {
      mount(path, `remount,size=${newMiB}m`)
    },
    [Symbol.dispose]() {
      // Lazily: whatever still has a file open there does not keep it mounted.
      spawnSync('umount', ['-l', path])
    },
  }
  return disk
}

function mount(path: string, options: string): void {
  const { status, stderr } = spawnSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', path])
  if (status !== 0) throw new Error(`${path} cannot be mounted: ${String(stderr)}`)
}
