/**
 * What was written to a disk image since its tracking began: a file beside the image, 16 bytes of identity and then one
 * record of 16 bytes for each extent. Only ever appended to; whoever reads it keeps a position.
 */
import { randomBytes } from 'node:crypto'
import {
  appendFileSync,
  closeSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import type { Extent } from '#recovery-agent/hypervisor/port.ts'

const ID_BYTES = 16
const RECORD_BYTES = 16

/** Where a log stands: which one it is, and how long. */
export interface LogPosition {
  readonly id: string
  readonly endBytes: number
}

export const changeLogOf = (diskPath: string): string => `${diskPath}.changes`

/** A new log with a new identity: whatever was known of an older one is void. */
export function startTracking(diskPath: string): void {
  writeFileSync(changeLogOf(diskPath), randomBytes(ID_BYTES))
}

export function stopTracking(diskPath: string): void {
  rmSync(changeLogOf(diskPath), { force: true })
}

/** undefined: nobody tracks this disk. */
export function logPosition(diskPath: string): LogPosition | undefined {
  const path = changeLogOf(diskPath)
  const stats = statSync(path, { throwIfNoEntry: false })
  if (!stats) return undefined
  const id = readFileSync(path).subarray(0, ID_BYTES).toString('hex')
  return { id, endBytes: stats.size }
}

/** The extents noted between two positions of one log, in the order they were noted. */
export function changesBetween(diskPath: string, fromBytes: number, toBytes: number): Extent[] {
  const records = readFileSync(changeLogOf(diskPath)).subarray(fromBytes, toBytes)
  const extents: Extent[] = []
  for (let at = 0; at + RECORD_BYTES <= records.length; at += RECORD_BYTES)
    extents.push({
      offsetBytes: Number(records.readBigUInt64LE(at)),
      lengthBytes: Number(records.readBigUInt64LE(at + 8)),
    })
  return extents
}

export interface TrackedWrite {
  readonly offsetBytes: number
  readonly bytes: Buffer
}

/**
 * Writes to an image whose tracking has begun, and notes it. Noted before and after: a snapshot between the first note
 * and the write must find the note again later, one between the write and the second note must find it at once.
 */
export function writeTracked(diskPath: string, writes: readonly TrackedWrite[]): void {
  const note = Buffer.concat(writes.map(({ offsetBytes, bytes }) => recordOf(offsetBytes, bytes.length)))
  appendFileSync(changeLogOf(diskPath), note)
  const fd = openSync(diskPath, 'r+')
  try {
    for (const { offsetBytes, bytes } of writes) writeSync(fd, bytes, 0, bytes.length, offsetBytes)
  } finally {
    closeSync(fd)
  }
  appendFileSync(changeLogOf(diskPath), note)
}

function recordOf(offsetBytes: number, lengthBytes: number): Buffer {
  const record = Buffer.alloc(RECORD_BYTES)
  record.writeBigUInt64LE(BigInt(offsetBytes), 0)
  record.writeBigUInt64LE(BigInt(lengthBytes), 8)
  return record
}
