import { closeSync, fsyncSync, openSync, renameSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'

/** Temp, write, fsync, rename, fsync the folder: after a crash the file is the old one or the new one, never half. */
export function writeFileDurably(path: string, content: string | Uint8Array, mode = 0o644): void {
  const temporary = `${path}.tmp`
  const bytes = typeof content === 'string' ? Buffer.from(content) : content
  const fd = openSync(temporary, 'w', mode)
  try {
    let offset = 0
    while (offset < bytes.length) offset += writeSync(fd, bytes, offset)
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
  renameSync(temporary, path)
  fsyncFolder(dirname(path))
}

export function fsyncFolder(path: string): void {
  const fd = openSync(path, 'r')
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}
