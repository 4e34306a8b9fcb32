/**
 * A checksum over all rows of a table, kept up by triggers: a row that changed, went or came by other ways than SQL is
 * noticed when the database is opened. It is a sum of CRC-32s, so that a write costs its own row only.
 */
import { crc32 } from 'node:zlib'
import type { Sqlite } from '#shared/sqlite.ts'

export type GuardedTables = Readonly<Record<string, readonly string[]>>

/** Needed by every connection that writes: the triggers call it. */
export function registerRowChecksum(db: Sqlite): void {
  const checksum = (...values: unknown[]) => crc32(JSON.stringify(values))
  db.function('row_checksum', { varargs: true, deterministic: true }, checksum)
}

/** For a migration: the table of checksums, and the triggers of each guarded table. What is there now is believed. */
export function guardTables(db: Sqlite, tables: GuardedTables): void {
  registerRowChecksum(db)
  db.exec(`
    CREATE TABLE table_checksums (
      name TEXT PRIMARY KEY,
      row_count INTEGER NOT NULL,
      total INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
  `)
  for (const [table, columns] of Object.entries(tables)) {
    const of = (row: string) => checksumOf(table, columns, row)
    const add = (rows: number, total: string) =>
      `BEGIN UPDATE table_checksums SET row_count = row_count + ${rows}, total = total + ${total} WHERE name = '${table}'; END`
    db.exec(`
      INSERT INTO table_checksums (name, row_count, total) ${sumOf(table, columns)};
      CREATE TRIGGER ${table}_inserted AFTER INSERT ON ${table} ${add(1, of('new.'))};
      CREATE TRIGGER ${table}_deleted AFTER DELETE ON ${table} ${add(-1, `-${of('old.')}`)};
      CREATE TRIGGER ${table}_updated AFTER UPDATE ON ${table} ${add(0, `${of('new.')} - ${of('old.')}`)};
    `)
  }
}

/** The first table whose rows are not those that were written; undefined: all are right. */
export function damagedTable(db: Sqlite, tables: GuardedTables): string | undefined {
  const stored = db.prepare<[string], Sums>(
    'SELECT name, row_count, total FROM table_checksums WHERE name = ?',
  )
  for (const [table, columns] of Object.entries(tables)) {
    const expected = stored.get(table)
    const found = db.prepare<[], Sums>(sumOf(table, columns)).get()
    if (!expected || expected.row_count !== found?.row_count || expected.total !== found.total) return table
  }
  return undefined
}

/**
 * Whether the definitions of tables and triggers are those of this schema version; a version that is new here is
 * remembered. `row_count` of its row is the version.
 */
export function isSchemaIntact(db: Sqlite): boolean {
  const version = db.pragma('user_version', { simple: true }) as number
  const rows = db
    .prepare<[], { sql: string | null }>('SELECT sql FROM sqlite_schema ORDER BY type, name')
    .all()
  const total = crc32(JSON.stringify(rows.map(({ sql }) => sql)))
  const known = db
    .prepare<[], Sums>("SELECT row_count, total FROM table_checksums WHERE name = 'schema'")
    .get()
  if (known?.row_count === version) return known.total === total
  const put = "INSERT OR REPLACE INTO table_checksums (name, row_count, total) VALUES ('schema', ?, ?)"
  db.prepare(put).run(version, total)
  return true
}

interface Sums {
  readonly row_count: number
  readonly total: number
}

function sumOf(table: string, columns: readonly string[]): string {
  const total = `coalesce(sum(${checksumOf(table, columns, '')}), 0)`
  return `SELECT '${table}' AS name, count(*) AS row_count, ${total} AS total FROM ${table}`
}

function checksumOf(table: string, columns: readonly string[], row: string): string {
  return `row_checksum('${table}', ${columns.map((column) => row + column).join(', ')})`
}
