/**
 * The codes with which a full file system, or a spent quota, shows itself. SQLite has two: SHMSIZE comes when the index
 * of a write-ahead log, 32 KiB beside the database, finds no room (https://www.sqlite.org/rescode.html).
 */
const codes: readonly unknown[] = ['ENOSPC', 'EDQUOT', 'SQLITE_FULL', 'SQLITE_IOERR_SHMSIZE']

export function isNoRoom(error: unknown): error is Error & { readonly code: string } {
  return error instanceof Error && 'code' in error && codes.includes(error.code)
}
