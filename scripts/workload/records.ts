/**
 * The orders on a disk: a ring of 4 KiB records from offset 0. Record n lies in slot n mod RING_SLOTS, so the newest
 * valid one tells how far the writer came, and the ones before it must be there without a gap.
 */
import { createHash } from 'node:crypto'
import { closeSync, openSync, readSync } from 'node:fs'

export const RECORD_BYTES = 4096
export const RING_SLOTS = 256
/** Nothing else may be written below this offset. */
export const RING_BYTES = RECORD_BYTES * RING_SLOTS

const MAGIC = Buffer.from('HSORDER1')
const BODY_BYTES = RECORD_BYTES - 32

export function recordOffset(n: number): number {
  return (n % RING_SLOTS) * RECORD_BYTES
}

export function encodeRecord(n: number, nowMs: number): Buffer {
  const record = Buffer.alloc(RECORD_BYTES)
  MAGIC.copy(record)
  record.writeBigUInt64LE(BigInt(n), 8)
  record.writeDoubleLE(nowMs, 16)
  record.write(`order ${n} `.repeat(200), 24, BODY_BYTES - 24, 'latin1')
  createHash('sha256').update(record.subarray(0, BODY_BYTES)).digest().copy(record, BODY_BYTES)
  return record
}

/** The counter; 'empty' for a slot never written; 'torn' for anything else. */
export function decodeRecord(record: Buffer): number | 'empty' | 'torn' {
  if (record.every((byte) => byte === 0)) return 'empty'
  if (!record.subarray(0, MAGIC.length).equals(MAGIC)) return 'torn'
  const checksum = createHash('sha256').update(record.subarray(0, BODY_BYTES)).digest()
  if (!checksum.equals(record.subarray(BODY_BYTES))) return 'torn'
  return Number(record.readBigUInt64LE(8))
}

export interface DiskOrders {
  /** 0: none yet; the first order is 1. */
  readonly newest: number
  /** Half-written, misplaced or missing records. */
  readonly torn: number
}

export function readOrders(path: string): DiskOrders {
  const ring = Buffer.alloc(RING_BYTES)
  const fd = openSync(path, 'r')
  try {
    readSync(fd, ring, 0, RING_BYTES, 0)
  } finally {
    closeSync(fd)
  }
  return ordersOf(ring)
}

export function ordersOf(ring: Buffer): DiskOrders {
  const slots = Array.from({ length: RING_SLOTS }, (_, slot) =>
    decodeRecord(ring.subarray(slot * RECORD_BYTES, (slot + 1) * RECORD_BYTES)),
  )
  const numbers = slots.filter((slot) => typeof slot === 'number')
  const newest = numbers.reduce((highest, n) => Math.max(highest, n), 0)
  // Slot s must hold the newest n ≤ newest with n ≡ s; below 1 there is none.
  const torn = slots.filter((slot, index) => {
    const expected = newest - ((newest - index + RING_SLOTS) % RING_SLOTS)
    return slot !== (expected >= 1 ? expected : 'empty')
  }).length
  return { newest, torn }
}

export interface Counters {
  readonly n0: number
  readonly n1: number
  readonly torn: boolean
  /** n1 ≤ n0 ≤ n1 + 1 and nothing torn: a state the VM really was in. */
  readonly consistent: boolean
}

/** Reads the orders of disk 0 and disk 1, in that order of paths. */
export function readCounters(diskPaths: readonly string[]): Counters {
  const [first, second] = diskPaths
  if (first === undefined || second === undefined) throw new Error('two disks are needed')
  return countersOf(readOrders(first), readOrders(second))
}

export function countersOf(first: DiskOrders, second: DiskOrders): Counters {
  const torn = first.torn + second.torn > 0
  const ordered = second.newest <= first.newest && first.newest <= second.newest + 1
  return { n0: first.newest, n1: second.newest, torn, consistent: ordered && !torn }
}
