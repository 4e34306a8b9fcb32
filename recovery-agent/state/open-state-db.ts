/**
 * Opens state.db, or says that it is damaged. Unlike the buffer it cannot be made anew by comparing: what was ordered,
 * and which epochs are over, stands nowhere else on this host (I5). So a damaged one is an error that a person must act
 * on, and never a state to go on with.
 */
import { existsSync, renameSync, rmSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { diskFull } from '#shared/errors/disk-full.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { isNoRoom } from '#shared/errors/no-room.ts'
import { type Migration, openSqlite, type Sqlite } from '#shared/sqlite.ts'
import { damagedTable, type GuardedTables, isSchemaIntact, registerRowChecksum } from './table-checksums.ts'

export interface OpenStateDb {
  readonly path: string
  readonly migrations: readonly Migration[]
  readonly guarded: GuardedTables
}

/** Throws `state-damaged`, `disk-full`, and `data-version-unknown` for a file of a newer program. */
export function openStateDb(options: OpenStateDb): Sqlite {
  const { path } = options
  if (!existsSync(path)) createWhole(options)
  if (statSync(path).size === 0) throw damaged(path, 'it is empty')
  let db: Sqlite | undefined
  try {
    db = openSqlite({ ...options, profile: 'control', prepare: registerRowChecksum })
    const [problem] = db.pragma('integrity_check(1)') as { integrity_check: string }[]
    if (problem?.integrity_check !== 'ok')
      throw damaged(path, problem?.integrity_check ?? 'it cannot be checked')
    if (!isSchemaIntact(db)) throw damaged(path, 'its tables are not defined as they were')
    const table = damagedTable(db, options.guarded)
    if (table !== undefined) throw damaged(path, `the rows of ${table} are not those that were written`)
    return db
  } catch (error) {
    db?.close()
    throw asDamage(path, error)
  }
}

/** Under another name until it is whole: a crash must not leave an empty file that looks like a damaged one. */
function createWhole({ path, migrations }: OpenStateDb): void {
  const unfinished = `${path}.new`
  for (const suffix of ['', '-wal', '-shm']) rmSync(unfinished + suffix, { force: true })
  const db = openSqlite({ path: unfinished, migrations, profile: 'control', prepare: registerRowChecksum })
  isSchemaIntact(db)
  db.close()
  renameSync(unfinished, path)
}

function asDamage(path: string, error: unknown): unknown {
  const reason = error instanceof HotsiteError && error.cause ? error.cause : error
  if (!(reason instanceof Error) || !('code' in reason) || typeof reason.code !== 'string') return error
  if (isNoRoom(reason)) return diskFull('state.db', dirname(path), reason)
  // SQLITE_ERROR: a table that should be there is not, or the other way round.
  if (!/^SQLITE_(CORRUPT|NOTADB|IOERR|ERROR|READONLY)/.test(reason.code)) return error
  return damaged(path, reason.message, reason)
}

function damaged(path: string, what: string, cause?: unknown): HotsiteError {
  return new HotsiteError('state-damaged', `${path} is damaged: ${what}`, { cause, details: { path } })
}
