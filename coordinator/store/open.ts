import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { Kysely, SqliteDialect } from 'kysely'
import { openSqlite } from '#shared/sqlite.ts'
import { coordinatorMigrations } from './migrations.ts'
import type { Database } from './schema.ts'

export interface Store extends AsyncDisposable {
  readonly db: Kysely<Database>
}

/** Throws `data-version-unknown` for a database of a newer version, which is then left untouched. */
export function openStore(dataDir: string): Store {
  mkdirSync(dataDir, { recursive: true, mode: 0o700 })
  const sqlite = openSqlite({
    path: join(dataDir, 'coordinator.db'),
    migrations: coordinatorMigrations,
    profile: 'control',
  })
  const db = new Kysely<Database>({ dialect: new SqliteDialect({ database: sqlite }) })
  return { db, [Symbol.asyncDispose]: () => db.destroy() }
}
