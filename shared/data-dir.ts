import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { HotsiteError } from './errors/hotsite-error.ts'

/**
 * Makes the data folder (mode 0700) and holds it for this process alone. The lock is an exclusive SQLite transaction
 * on `lock.db`: the system releases it when the process ends, however it ends, so no stale lock needs an operator.
 * Throws `data-dir-in-use`.
 */
export function lockDataDir(dataDir: string): Disposable {
  mkdirSync(dataDir, { recursive: true, mode: 0o700 })
  const db = new Database(join(dataDir, 'lock.db'), { timeout: 0 })
  try {
    // The journal in memory: killed, we leave no journal behind that the next one would have to roll back.
    db.pragma('journal_mode = MEMORY')
    db.exec('BEGIN EXCLUSIVE')
  } catch (error) {
    db.close()
    if (error instanceof Error && 'code' in error && String(error.code).startsWith('SQLITE_BUSY')) {
      throw new HotsiteError(
        'data-dir-in-use',
        `another process, a daemon or a registration, is working on ${dataDir}`,
        { cause: error },
      )
    }
    throw error
  }
  return { [Symbol.dispose]: () => db.close() }
}
