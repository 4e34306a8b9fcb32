/**
 * The file operations of the replica store, all of them, so that a simulated disk can stand in for the real one.
 * Errors leave here as Node's own; the store turns them into HotsiteErrors.
 */
import {
  closeSync,
  existsSync,
  fdatasyncSync,
  fstatSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writevSync,
} from 'node:fs'
import { fsyncFolder } from '#shared/durable-file.ts'
import type { BlockFile } from '#shared/formats/block-file.ts'
import { openPunchHole } from './merging/punch-hole.ts'
import { DirectWrites } from './receiving/direct-writes.ts'

export interface ReplicaFiles {
  /** read: must exist. write: must exist. create: empty, replacing what was there. */
  open(path: string, mode: 'read' | 'write' | 'create'): BlockFile
  exists(path: string): boolean
  /** Of the file that has this name now: another one has another text. null: there is none. */
  identity(path: string): string | null
  /** Names in a folder; none when there is no such folder. */
  list(folder: string): readonly string[]
  ensureFolder(folder: string): void
  rename(from: string, to: string): void
  /** A file or a whole folder; nothing when it is gone already. */
  remove(path: string): void
  /** Names in the folder are on stable storage. */
  syncFolder(folder: string): void
  /** Bytes the file takes on the disk, holes not counted. */
  storedBytes(path: string): number
}

const punchHole = openPunchHole()

class NodeFile implements BlockFile {
  readonly #fd: number
  readonly #direct = new DirectWrites()

  constructor(fd: number) {
    this.#fd = fd
  }

  read(target: Buffer, offsetBytes: number): void {
    let done = 0
    while (done < target.length) {
      const got = readSync(this.#fd, target, done, target.length - done, offsetBytes + done)
      if (got === 0) {
        target.fill(0, done)
        return
      }
      done += got
    }
  }

  write(buffers: readonly Buffer[], offsetBytes: number): void {
    let position = offsetBytes + this.#direct.write(this.#fd, buffers, offsetBytes)
    let rest = withoutFirst(buffers, position - offsetBytes)
    while (rest.length > 0) {
      const written = writevSync(this.#fd, rest, position)
      position += written
      rest = withoutFirst(rest, written)
    }
  }

  sync(): void {
    // With the size and whatever else is needed to find the bytes again; times are not (fdatasync(2)).
    fdatasyncSync(this.#fd)
  }

  truncate(sizeBytes: number): void {
    ftruncateSync(this.#fd, sizeBytes)
  }

  sizeBytes(): number {
    return fstatSync(this.#fd).size
  }

  punchHole(offsetBytes: number, lengthBytes: number): void {
    punchHole(this.#fd, offsetBytes, lengthBytes)
  }

  close(): void {
    this.#direct.close()
    closeSync(this.#fd)
  }
}

function withoutFirst(buffers: readonly Buffer[], bytes: number): Buffer[] {
  const rest: Buffer[] = []
  let skip = bytes
  for (const buffer of buffers) {
    if (skip >= buffer.length) skip -= buffer.length
    else {
      rest.push(buffer.subarray(skip))
      skip = 0
    }
  }
  return rest
}

const flags = { read: 'r', write: 'r+', create: 'w+' } as const

export const nodeFiles: ReplicaFiles = {
  open: (path, mode) => new NodeFile(openSync(path, flags[mode], 0o640)),
  exists: (path) => existsSync(path),
  identity: (path) => {
    const found = statSync(path, { throwIfNoEntry: false })
    return found ? `${found.dev}:${found.ino}` : null
  },
  list: (folder) => (existsSync(folder) ? readdirSync(folder) : []),
  ensureFolder: (folder) => {
    // A hypervisor with a user of its own gets through to the files it is told of; it can list nothing.
    mkdirSync(folder, { recursive: true, mode: 0o711 })
  },
  rename: (from, to) => renameSync(from, to),
  remove: (path) => rmSync(path, { recursive: true, force: true }),
  syncFolder: (folder) => fsyncFolder(folder),
  storedBytes: (path) => statSync(path).blocks * 512,
}
