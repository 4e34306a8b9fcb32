/** What the tour of real guests claims is looked up outside the daemons, and outside the guests. */
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Database from 'better-sqlite3'

const env = { ...process.env, PATH: `${process.env['PATH']}:/usr/sbin:/sbin` }

export interface Orders {
  readonly n0: number
  readonly n1: number
  readonly n: number
  readonly slowestMs: number
}

/** What the orders guest reports: the last order on each disk when it came up, and the one it is at. */
export function ordersIn(report: string): Orders {
  const [, n0, n1, n, slowestMs] =
    /^recovered n0=(\d+) n1=(\d+) n=(\d+) slowestMs=(\d+)/.exec(report)?.map(Number) ?? []
  if (n0 === undefined || n1 === undefined || n === undefined || slowestMs === undefined)
    throw new Error(`the guest reports "${report}"`)
  return { n0, n1, n, slowestMs }
}

/** Order n is on the first disk before it goes to the second. */
export const isOrderHeld = ({ n0, n1 }: Orders): boolean => n0 > 0 && (n0 === n1 || n0 === n1 + 1)

/** What the database guest found: SQLite's own check, and as many orders as its total says. */
export function isDatabaseClean(report: string): boolean {
  const [, check, count, total] = /^recovered (\w+) (\d+) (\d+)/.exec(report) ?? []
  return check === 'ok' && Number(count) > 0 && count === total
}

/** The file system of a disk as it is at a point: its journal is replayed on a copy, as a mount would, then nothing is wrong. */
export function isFileSystemClean(layer: string): boolean {
  return withRawCopy(layer, (raw) => {
    const replayed = spawnSync('e2fsck', ['-p', raw], { stdio: 'pipe', env })
    const checked = spawnSync('e2fsck', ['-f', '-n', raw], { stdio: 'pipe', env })
    // 1: it was repaired, which replaying the journal is.
    return (replayed.status === 0 || replayed.status === 1) && checked.status === 0
  })
}

/** The database on a disk as it is at a point, opened by the SQLite of this machine. */
export function isDatabaseAtPointClean(layer: string): boolean {
  return withRawCopy(layer, (raw, dir) => {
    spawnSync('e2fsck', ['-p', raw], { stdio: 'pipe', env })
    for (const name of ['orders.db', 'orders.db-wal'])
      execFileSync('debugfs', ['-R', `dump /${name} ${join(dir, name)}`, raw], { stdio: 'pipe', env })
    if (!existsSync(join(dir, 'orders.db'))) return false
    const db = new Database(join(dir, 'orders.db'))
    try {
      const { orders, total } = db
        .prepare('SELECT (SELECT count(*) FROM orders) AS orders, (SELECT number FROM total) AS total')
        .get() as { orders: number; total: number }
      return db.pragma('integrity_check', { simple: true }) === 'ok' && orders > 0 && orders === total
    } finally {
      db.close()
    }
  })
}

function withRawCopy<T>(layer: string, look: (raw: string, dir: string) => T): T {
  const dir = mkdtempSync(join(tmpdir(), 'hotsite-proof-'))
  try {
    const raw = join(dir, 'disk.raw')
    execFileSync('qemu-img', ['convert', '-O', 'raw', layer, raw], { stdio: 'pipe' })
    return look(raw, dir)
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

/** A PNG that shows more than one colour: a screen on which something is. */
export function isPicture(path: string): boolean {
  const bytes = readFileSync(path)
  return (
    bytes.subarray(0, 8).equals(Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a])) &&
    bytes.length > 1_000
  )
}
