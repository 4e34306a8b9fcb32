/**
 * A backup is a folder that a coordinator can be started on: the database as of one instant (SQLite's own online
 * backup), the vault keys and the TLS identity, without which no server would trust the restored one. It holds
 * secrets, so nobody but the owner may look into it (I15).
 */
import { cpSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { fsyncFolder } from '#shared/durable-file.ts'

const folderPattern = /^coordinator-\d{8}T\d{6}Z$/
const unfinished = '.unfinished'

/** Answers the folder of the backup. Throws what the file system or SQLite throws; a failed one leaves nothing behind. */
export async function takeBackup(request: {
  dataDir: string
  backupDir: string
  nowMs: number
}): Promise<string> {
  const { dataDir, backupDir, nowMs } = request
  mkdirSync(backupDir, { recursive: true, mode: 0o700 })
  const folder = join(backupDir, nameOf(nowMs))
  const temporary = `${folder}${unfinished}`
  rmSync(temporary, { recursive: true, force: true })
  mkdirSync(temporary, { mode: 0o700 })
  try {
    const source = new Database(join(dataDir, 'coordinator.db'), { readonly: true, fileMustExist: true })
    try {
      await source.backup(join(temporary, 'coordinator.db'))
    } finally {
      source.close()
    }
    for (const secrets of ['vaults', 'tls']) {
      const from = join(dataDir, secrets)
      if (existsSync(from)) cpSync(from, join(temporary, secrets), { recursive: true })
    }
    rmSync(folder, { recursive: true, force: true })
    renameSync(temporary, folder)
    fsyncFolder(backupDir)
    return folder
  } catch (error) {
    rmSync(temporary, { recursive: true, force: true })
    throw error
  }
}

/** Removes all but the newest `keep` backups, and what an interrupted one left. Other files in the folder are not ours. */
export function pruneBackups(backupDir: string, keep: number): void {
  const names = readdirSync(backupDir)
  const finished = names.filter((name) => folderPattern.test(name)).sort()
  const left = names.filter(
    (name) => name.endsWith(unfinished) && folderPattern.test(name.slice(0, -unfinished.length)),
  )
  for (const name of [...finished.slice(0, Math.max(0, finished.length - keep)), ...left]) {
    rmSync(join(backupDir, name), { recursive: true, force: true })
  }
}

/** Sorts by age: coordinator-20261122T023000Z. */
function nameOf(nowMs: number): string {
  return `coordinator-${new Date(nowMs).toISOString().replace(/[-:]|\.\d{3}/g, '')}`
}
