/** Every row of buffer.db carries a CRC-32 over its key and its content: a row that does not have it is never used. */
import { crc32 } from 'node:zlib'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'

/** Each value with its type and length, so that nothing can move from one column to the next unseen. */
export function rowChecksum(table: string, values: readonly unknown[]): number {
  let checksum = crc32(table)
  for (const value of values) {
    if (Buffer.isBuffer(value)) checksum = crc32(value, crc32(`\0b${value.length}:`, checksum))
    else checksum = crc32(`\0${typeof value}:${value}`, checksum)
  }
  return checksum
}

export function damagedRow(table: string, key: string, what: string): HotsiteError {
  return new HotsiteError('buffer-damaged', `buffer.db, table ${table}, row ${key}: ${what}`, {
    details: { table, row: key },
  })
}

/** Throws `buffer-damaged`, naming the row. */
export function ensureIntact(
  table: string,
  key: string,
  row: { checksum: unknown; values: readonly unknown[] },
): void {
  if (row.checksum !== rowChecksum(table, row.values))
    throw damagedRow(table, key, 'its checksum does not hold')
}
