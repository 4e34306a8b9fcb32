/** buffer.db of one agent: cursors, trees and the deltas the target does not have yet (DESIGN §5). */
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { openSqlite, type Sqlite } from '#shared/sqlite.ts'
import { type LeafStore, openLeafStore } from '../tree/leaf-store.ts'
import { damagedFile, damageOfFile, formatChecksum, isFileDamage, setAside } from './damaged-file.ts'
import { type DeltaRows, openDeltaRows } from './delta-rows.ts'
import { type Garbage, openGarbage } from './garbage.ts'
import { bufferMigrations } from './schema.ts'
import { openVmRows, type VmRows } from './vm-rows.ts'

export interface DeltaBuffer {
  readonly path: string
  readonly vms: VmRows
  readonly deltas: DeltaRows
  readonly leaves: LeafStore
  readonly garbage: Garbage
  /** Why this is a new file in place of one that was damaged. */
  readonly damage?: HotsiteError
  /** One durable step: everything `change` does, or nothing. */
  atomically(change: () => void): void
  /** Reads that belong together, under one lock of the file: taking it costs more than most of them. */
  reading<T>(read: () => T): T
  close(): void
}

/** Throws `data-version-unknown` for a file of a newer program, which is left as it is. */
export function openBuffer(path: string): DeltaBuffer {
  const what = damageOfFile(path, bufferMigrations.length)
  if (what !== undefined) return replaceBuffer(path, what)
  try {
    return openFile(path)
  } catch (error) {
    const reason = error instanceof HotsiteError && error.cause ? error.cause : error
    if (!isFileDamage(reason)) throw error
    return replaceBuffer(path, (reason as Error).message, reason)
  }
}

/** An empty one in place of a damaged one, which is set aside. Whoever has that open closes it before. */
export function replaceBuffer(path: string, what: string, cause?: unknown): DeltaBuffer {
  const damage = damagedFile(path, what, setAside(path), cause)
  return { ...openFile(path), damage }
}

function openFile(path: string): DeltaBuffer {
  const db = openSqlite({ path, migrations: bufferMigrations, profile: 'bulk' })
  try {
    const version = bufferMigrations.length
    const checksum = formatChecksum(version)
    const known = db.prepare('SELECT 1 FROM format WHERE version = ? AND checksum = ?').get(version, checksum)
    if (!known)
      db.prepare('INSERT OR REPLACE INTO format (only, version, checksum) VALUES (1, ?, ?)').run(
        version,
        checksum,
      )
    return bufferOn(db)
  } catch (error) {
    db.close()
    throw error
  }
}

function readingTogether(db: Sqlite): DeltaBuffer['reading'] {
  const together = db.transaction((read: () => unknown) => read())
  return <T>(read: () => T) => together(read) as T
}

export function bufferOn(db: Sqlite): DeltaBuffer {
  const reading = readingTogether(db)
  const leaves = openLeafStore(db)
  const deltas = openDeltaRows(db)
  return {
    path: db.name,
    vms: openVmRows(db),
    deltas,
    leaves,
    garbage: openGarbage(db, { deltas, leaves, reading }),
    atomically: (change) => db.transaction(change).immediate(),
    reading,
    close: () => void db.close(),
  }
}
