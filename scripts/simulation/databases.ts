/** What happens to the databases of a life from outside: no room below them, and rows that turn. */
import { basename, dirname, join } from 'node:path'
import Database from 'better-sqlite3'
import { damageOnce } from '#recovery-agent/testing/damage-rows.ts'

export const databaseNames = ['buffer.db', 'replica.db'] as const
export type DatabaseName = (typeof databaseNames)[number]

/** Rows that speak of deltas, points, layers and hash trees. */
const tables: Readonly<Record<DatabaseName, readonly string[]>> = {
  'buffer.db': ['vms', 'disks', 'deltas', 'batches', 'trees', 'tree_pages'],
  'replica.db': [
    'replicas',
    'points',
    'point_disks',
    'catalog_sums',
    'layers',
    'layer_groups',
    'trees',
    'tree_pages',
  ],
}

/** SQLite's own largest number of pages. */
const MAX_PAGES = 4_294_967_294

/** By folder: every database that was opened there, and by whom is what a limit of pages is kept. */
const handles = new Map<string, Set<Database.Database>>()
let isFollowing = false

/** From now on every database that is opened is known: how many pages it may have is a matter of its connection. */
export function followDatabases(): void {
  if (isFollowing) return
  isFollowing = true
  const { pragma } = Database.prototype
  Database.prototype.pragma = function (this: Database.Database, ...args: Parameters<typeof pragma>) {
    const dir = dirname(this.name)
    const known = handles.get(dir) ?? new Set()
    handles.set(dir, known.add(this))
    return pragma.apply(this, args)
  }
}

/** Its connections are about to be closed. */
export function forgetDatabases(dir: string): void {
  handles.delete(dir)
}

/** `pages` more may be written. Answers whether there is such a database. */
export function fillDatabase(dir: string, name: DatabaseName, pages: number): boolean {
  const found = openIn(dir).filter((db) => basename(db.name) === name)
  for (const db of found)
    db.pragma(`max_page_count = ${(db.pragma('page_count', { simple: true }) as number) + pages}`)
  return found.length > 0
}

export function makeRoom(dir: string): void {
  for (const db of openIn(dir)) db.pragma(`max_page_count = ${MAX_PAGES}`)
}

function openIn(dir: string): Database.Database[] {
  return [...(handles.get(dir) ?? [])].filter(({ open }) => open)
}

/** Answers what was done. */
export function damageRow(dir: string, name: DatabaseName, numbers: [number, number, number]): string {
  const db = new Database(join(dir, name), { timeout: 0 })
  try {
    db.pragma('foreign_keys = OFF')
    db.pragma('ignore_check_constraints = ON')
    return damageOnce(db, tables[name], numbers)
  } catch (error) {
    // Somebody reads just now, or it is a row that SQLite itself would not take.
    return `nothing: ${error instanceof Error ? error.message : error}`
  } finally {
    db.close()
  }
}
