import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { HotsiteError } from './errors/hotsite-error.ts'

/**
 * One daemon on one data folder. The lock is SQLite's exclusive lock on an empty database: the system drops it with the
 * process, however that ends, so there is no stale lock file to clean up. Throws `data-dir-in-use`.
 */
export function lockDataDir(dataDir: string): Disposable {
  mkdirSync(dataDir, { recursive: true, mode: 0o700 })
  const db = new Database(join(dataDir, 'daemon.lock'), { timeout: 0 })
  try {
    db.exec('BEGIN EXCLUSIVE')
  } catch (error) {
    db.close()
    if (error instanceof Error && 'code' in error && String(error.code).startsWith('SQLITE_BUSY')) {
      throw new HotsiteError('data-dir-in-use', `another daemon runs on ${dataDir}`, { cause: error })
    }
    throw error
  }
  return { [Symbol.dispose]: () => void db.close() }
}
