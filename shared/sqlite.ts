import Database from 'better-sqlite3'
import { HotsiteError } from './errors/hotsite-error.ts'

export type Sqlite = Database.Database

export interface Migration {
  readonly name: string
  readonly sql: string
  /** After `sql`, in the same transaction: what SQL alone cannot say. */
  readonly step?: (db: Sqlite) => void
}

export interface OpenSqliteOptions {
  readonly path: string
  /** Applied in order; `user_version` counts those done. Never edit one that was released: add another. */
  readonly migrations: readonly Migration[]
  /** control: small rows, WAL. bulk: payload rows, PERSIST with 64 KiB pages (docs/performance.md says why). */
  readonly profile: 'control' | 'bulk'
  /** Before anything is read or migrated: functions that triggers call. */
  readonly prepare?: (db: Sqlite) => void
}

/**
 * Opens a daemon's database and brings it to the newest schema, each migration in one transaction with its version.
 * Throws `data-version-unknown` when the file is newer than this program; the file is then left as it was.
 */
export function openSqlite({ path, migrations, profile, prepare }: OpenSqliteOptions): Sqlite {
  const db = new Database(path)
  try {
    prepare?.(db)
    const version = db.pragma('user_version', { simple: true }) as number
    if (version > migrations.length) {
      throw new HotsiteError(
        'data-version-unknown',
        `${path} has schema version ${version}; this program knows up to ${migrations.length}`,
      )
    }
    // page_size only takes effect before the first table, journal_mode before any transaction.
    if (profile === 'bulk') {
      db.pragma('page_size = 65536')
      db.pragma('journal_mode = PERSIST')
      db.pragma('cache_size = -16384')
    } else {
      db.pragma('journal_mode = WAL')
    }
    db.pragma('synchronous = FULL')
    db.pragma('foreign_keys = ON')
    db.pragma('busy_timeout = 5000')
    migrations.slice(version).forEach((migration, index) => {
      db.transaction(() => {
        db.exec(migration.sql)
        migration.step?.(db)
        db.pragma(`user_version = ${version + index + 1}`)
      }).immediate()
    })
    return db
  } catch (error) {
    db.close()
    if (error instanceof Error && 'code' in error && error.code === 'SQLITE_NOTADB') {
      throw new HotsiteError('data-version-unknown', `${path} is not a database of Hotsite`, { cause: error })
    }
    throw error
  }
}
