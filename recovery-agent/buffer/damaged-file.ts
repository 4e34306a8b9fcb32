/**
 * A buffer.db that is damaged as a file: not a database any more, cut off, empty, or with pages that contradict each
 * other. It is set aside and a new one takes its place; what was in it is found again by comparing hashes.
 */
import { closeSync, existsSync, fsyncSync, openSync, readSync, renameSync, rmSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import Database from 'better-sqlite3'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { rowChecksum } from './row-checksum.ts'

/** Kept for whoever wants to look; each may be as large as the buffer. */
const KEPT_DAMAGED_FILES = 2

/** What SQLite keeps beside a database: it must not be applied to the next file of that name. */
const COMPANIONS = ['', '-journal', '-wal', '-shm']

/** https://www.sqlite.org/fileformat.html#the_database_header */
const HEADER_BYTES = 100
const MAGIC = 'SQLite format 3\0'
/** File format write and read version: 1 is a rollback journal, the only one buffer.db ever has. */
const VERSIONS_OFFSET = 18
const ROLLBACK_JOURNAL = 1

export const formatChecksum = (version: number): number => rowChecksum('format', [1, version])

/** SQLite, or the file below it, says that what is stored cannot be. */
export function isFileDamage(error: unknown): boolean {
  if (!(error instanceof Error) || !('code' in error) || typeof error.code !== 'string') return false
  if (/^SQLITE_(CORRUPT|NOTADB|IOERR_READ|IOERR_SHORT_READ|IOERR_CORRUPTFS)/.test(error.code)) return true
  // A file that was emptied while it was open has no tables; a header may name a format no SQLite ever had.
  return (
    error.code === 'SQLITE_ERROR' &&
    /no such (table|column)|already exists|duplicate column|unsupported file format/.test(error.message)
  )
}

/** Why the file cannot be one that was written here; undefined: it may be, or there is none. `version`: the newest known. */
export function damageOfFile(path: string, version: number): string | undefined {
  if (!existsSync(path)) return undefined
  if (statSync(path).size === 0) return 'it is empty'
  const header = headerOf(path)
  if (header.length < HEADER_BYTES || header.toString('latin1', 0, MAGIC.length) !== MAGIC)
    return 'it is no database'
  const versions = [header[VERSIONS_OFFSET], header[VERSIONS_OFFSET + 1]]
  if (versions.some((each) => each !== ROLLBACK_JOURNAL)) return 'its header is damaged'
  return contradictionOf(path, version)
}

/** The version stands in the file's header and in a table, where it has a checksum. */
function contradictionOf(path: string, known: number): string | undefined {
  let db: Database.Database | undefined
  try {
    db = new Database(path)
    const inHeader = db.pragma('user_version', { simple: true })
    const hasTable = db.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'format'").get() !== undefined
    if (!hasTable) return undefined
    const row = db.prepare<[], { version: number; checksum: number }>('SELECT * FROM format').get()
    if (!row || row.checksum !== formatChecksum(row.version) || row.version > known) return undefined
    return row.version === inHeader
      ? undefined
      : `its header says version ${inHeader}, its table ${row.version}`
  } catch (error) {
    if (isFileDamage(error)) return (error as Error).message
    throw error
  } finally {
    db?.close()
  }
}

function headerOf(path: string): Buffer {
  const fd = openSync(path, 'r')
  try {
    const header = Buffer.alloc(HEADER_BYTES)
    return header.subarray(0, readSync(fd, header, 0, HEADER_BYTES, 0))
  } finally {
    closeSync(fd)
  }
}

/** Renames the file, and what SQLite keeps beside it, to `<path>.damaged-<n>`; the oldest of these makes room. Answers the new name. */
export function setAside(path: string): string {
  const names = Array.from({ length: KEPT_DAMAGED_FILES }, (_, i) => `${path}.damaged-${i + 1}`)
  const free = names.find((name) => !existsSync(name))
  const target = free ?? oldestOf(names)
  for (const companion of COMPANIONS) {
    rmSync(target + companion, { force: true })
    if (existsSync(path + companion)) renameSync(path + companion, target + companion)
  }
  const folder = openSync(dirname(path), 'r')
  try {
    fsyncSync(folder)
  } finally {
    closeSync(folder)
  }
  return target
}

function oldestOf(names: readonly string[]): string {
  const [oldest] = [...names].sort((a, b) => statSync(a).mtimeMs - statSync(b).mtimeMs)
  return oldest ?? names[0] ?? ''
}

export function damagedFile(path: string, what: string, aside: string, cause?: unknown): HotsiteError {
  return new HotsiteError(
    'buffer-damaged',
    `the file ${path} is damaged: ${what}; it was set aside as ${aside}, and every VM is compared anew`,
    { cause, details: { path, aside } },
  )
}
