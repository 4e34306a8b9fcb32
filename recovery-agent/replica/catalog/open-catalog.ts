/**
 * replica.db as a file. One that is no database, or contradicts itself, is set aside and an empty one takes its place;
 * `rebuildCatalog` then brings the replicas back from the copies beside their layers.
 */
import { closeSync, existsSync, openSync, rmSync } from 'node:fs'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { Logger } from '#shared/log.ts'
import { openSqlite, type Sqlite } from '#shared/sqlite.ts'
import { isFileDamage, setAside } from '../../buffer/damaged-file.ts'
import { replicaMigrations } from './schema.ts'

/** Control, not bulk: a scattered delta rewrites rows of 8 KiB, which 64 KiB pages would multiply by eight. */
const open = (path: string) => openSqlite({ path, migrations: replicaMigrations, profile: 'control' })

export function openCatalogFile(path: string, log: Logger): Sqlite {
  const marker = markerOf(path)
  const replace = (why: unknown): Sqlite => {
    const aside = setAside(path)
    log.error('replica.database-set-aside', { path, aside, error: why })
    const db = open(path)
    rmSync(marker, { force: true })
    return db
  }
  if (existsSync(marker)) return replace('it was found damaged while it was in use')
  try {
    const db = open(path)
    // The pages every statement needs; others are found when they are read.
    db.prepare('SELECT count(*) FROM sqlite_schema').get()
    for (const table of ['replicas', 'points', 'point_disks', 'overlays', 'partials', 'catalog_sums'])
      db.prepare(`SELECT count(*) FROM ${table}`).get()
    return db
  } catch (error) {
    const isNone =
      error instanceof HotsiteError && error.code === 'data-version-unknown' && isNoDatabase(error)
    if (!isNone && !isFileDamage(error)) throw error
    return replace(error)
  }
}

function isNoDatabase({ cause }: HotsiteError): boolean {
  return isFileDamage(cause)
}

/**
 * What SQLite found wrong in the file while it was in use: from here on nothing of it is believed, the next start sets
 * it aside. undefined: the error is another one.
 */
export function catalogFileDamage(path: string, error: unknown): HotsiteError | undefined {
  if (!isFileDamage(error)) return undefined
  closeSync(openSync(markerOf(path), 'w'))
  return new HotsiteError('catalog-damaged', `${path} is damaged: ${(error as Error).message}`, {
    cause: error,
    details: { path, restart: true },
  })
}

function markerOf(path: string): string {
  return `${path}.is-damaged`
}
