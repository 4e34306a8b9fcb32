/** Rot, for tests: one change of one row of a database, chosen by three numbers. */
import type { Sqlite } from '#shared/sqlite.ts'

type Value = number | string | Buffer | null

/** Answers what was done. Kinds: a flipped bit in any column, keys included; a row that is gone; two rows whose contents changed places. */
export function damageOnce(
  db: Sqlite,
  tables: readonly string[],
  [kind, a, b]: readonly [number, number, number],
): string {
  const filled = tables.filter((table) => countOf(db, table) > 0)
  const table = filled[a % filled.length]
  if (!table) return 'nothing to damage'
  const keys = db.prepare<[], { name: string; pk: number }>(
    `SELECT name, pk FROM pragma_table_info('${table}')`,
  )
  const columns = keys.all()
  const named = columns.filter(({ pk }) => pk > 0).map(({ name }) => name)
  const key = named.length > 0 ? named : ['rowid']
  const rows = db.prepare<[], Record<string, Value>>(`SELECT ${key.join(', ')}, * FROM ${table}`).all()
  const row = rows[b % rows.length]
  if (!row) return 'nothing to damage'
  const where = key.map((name) => `${name} = @key_${name}`).join(' AND ')
  const keyOf = (of: Record<string, Value>) =>
    Object.fromEntries(key.map((name) => [`key_${name}`, of[name]]))
  const set = (of: Record<string, Value>, values: Record<string, Value>) => {
    const assignments = Object.keys(values).map((name) => `${name} = @${name}`)
    db.prepare(`UPDATE OR REPLACE ${table} SET ${assignments.join(', ')} WHERE ${where}`).run({
      ...keyOf(of),
      ...values,
    })
  }
  switch (kind % 4) {
    case 0:
      db.prepare(`DELETE FROM ${table} WHERE ${where}`).run(keyOf(row))
      return `a row of ${table} deleted`
    case 1: {
      const other = rows[(b + 1 + (kind >> 2)) % rows.length] ?? row
      const plain = columns.filter(({ pk }) => pk === 0).map(({ name }) => name)
      const of = (from: Record<string, Value>) =>
        Object.fromEntries(plain.map((name) => [name, from[name] ?? null]))
      if (plain.length === 0) return `${table} has nothing to swap`
      set(row, of(other))
      set(other, of(row))
      return `two rows of ${table} swapped`
    }
    default: {
      const { name } = columns[(kind >> 2) % columns.length] ?? { name: '' }
      const value = flipped(row[name] ?? null, (kind >> 5) + b)
      set(row, { [name]: value })
      return `${table}.${name} flipped`
    }
  }
}

function countOf(db: Sqlite, table: string): number {
  return db.prepare<[], { count: number }>(`SELECT count(*) AS count FROM ${table}`).get()?.count ?? 0
}

function flipped(value: Value, at: number): Value {
  if (typeof value === 'number') return Number.isInteger(value) ? value + 2 ** (at % 20) : value + 1
  if (Buffer.isBuffer(value)) {
    if (value.length === 0) return Buffer.from([1])
    const copy = Buffer.from(value)
    const bit = at % (copy.length * 8)
    copy[bit >> 3] = (copy[bit >> 3] ?? 0) ^ (1 << (bit & 7))
    return copy
  }
  if (value === null) return null
  const i = at % Math.max(1, value.length)
  const code = value.charCodeAt(i) ^ 1
  return value.slice(0, i) + String.fromCharCode(code) + value.slice(i + 1)
}
