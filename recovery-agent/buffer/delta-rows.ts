/** Deltas and their batches as rows, and how much of the buffer they fill (I13). */
import type { PackedBatch } from '#shared/blocks/batch.ts'
import { type VmId, vmId } from '#shared/ids.ts'
import type { Sqlite } from '#shared/sqlite.ts'
import { type DeltaHeader, deltaHeader } from './delta-header.ts'

export interface DeltaKey {
  readonly vmId: VmId
  readonly epoch: number
  readonly seq: number
}

export interface DeltaRow {
  readonly delta: number
  readonly seq: number
  readonly epoch: number
  readonly header: DeltaHeader
  readonly manifest: Buffer
}

export interface BatchRow extends PackedBatch {
  /** Position of the disk in the header. */
  readonly disk: number
  readonly batch: number
}

/** What a row takes beside its payload, rounded up: keys, lengths, index entry. */
const ROW_OVERHEAD_BYTES = 128
const BYTES_PER_BLOCK_ENTRY = 8

export function rowBytes(batch: PackedBatch): number {
  return batch.payload.length + batch.blockIndexes.length * BYTES_PER_BLOCK_ENTRY + ROW_OVERHEAD_BYTES
}

export interface DeltaRows {
  /** One transaction. `delta` null begins an unsealed one, whose rows are garbage until `seal`. */
  append(key: DeltaKey, delta: number | null, batches: readonly BatchRow[]): number
  /** Inside the caller's transaction, with the trees and the cursor. */
  seal(delta: number, header: DeltaHeader, manifest: Uint8Array): void
  next(vm: VmId, afterSeq: number): DeltaRow | undefined
  bySeq(vm: VmId, seq: number): DeltaRow | undefined
  batch(key: { delta: number; disk: number; batch: number }): PackedBatch | undefined
  bufferedBytes(vm: VmId): number
  totalBytes(): number
  /** Deltas that can never be sent: see garbage.ts. `exceptDelta` is being written. */
  dead(exceptDelta: number | null): readonly number[]
  /** Deletes one transaction's worth; false: the delta is gone entirely. */
  deleteSome(delta: number): boolean
}

/** Deletes run in transactions of their own, so that freed pages are not journalled together with new ones. */
const DELETE_BATCHES = 32

interface RawDelta {
  delta: number
  seq: number
  epoch: number
  header_json: string
  manifest: Buffer
}

export function openDeltaRows(db: Sqlite): DeltaRows {
  const filled = new Map<VmId, number>()
  const sizes = new Map<number, { vm: VmId; bytes: number }>()
  const count = (delta: number, vm: VmId, bytes: number) => {
    sizes.set(delta, { vm, bytes: (sizes.get(delta)?.bytes ?? 0) + bytes })
    filled.set(vm, (filled.get(vm) ?? 0) + bytes)
  }
  const discount = (delta: number) => {
    const size = sizes.get(delta)
    if (!size) return
    sizes.delete(delta)
    const left = (filled.get(size.vm) ?? 0) - size.bytes
    if (left > 0) filled.set(size.vm, left)
    else filled.delete(size.vm)
  }
  const stored = db.prepare<[], { delta: number; vm_id: string; stored_bytes: number }>(
    'SELECT delta, vm_id, stored_bytes FROM deltas',
  )
  for (const row of stored.all()) count(row.delta, vmId.parse(row.vm_id), row.stored_bytes)
  return { ...writers(db, count), ...readers(db), ...removers(db, discount), ...counters(filled) }
}

function counters(filled: ReadonlyMap<VmId, number>): Pick<DeltaRows, 'bufferedBytes' | 'totalBytes'> {
  return {
    bufferedBytes: (vm) => filled.get(vm) ?? 0,
    totalBytes: () => [...filled.values()].reduce((sum, bytes) => sum + bytes, 0),
  }
}

function writers(
  db: Sqlite,
  count: (delta: number, vm: VmId, bytes: number) => void,
): Pick<DeltaRows, 'append' | 'seal'> {
  const insertDelta = db.prepare<[string, number, number]>(
    'INSERT INTO deltas (vm_id, epoch, seq, sealed, stored_bytes) VALUES (?, ?, ?, 0, 0)',
  )
  const insertBatch = db.prepare<[number, number, number, Buffer, Buffer, Buffer]>(
    'INSERT INTO batches (delta, disk, batch, block_indexes, block_sizes, payload) VALUES (?, ?, ?, ?, ?, ?)',
  )
  const grow = db.prepare<[number, number]>(
    'UPDATE deltas SET stored_bytes = stored_bytes + ? WHERE delta = ?',
  )
  const seal = db.prepare<[string, Uint8Array, number]>(
    'UPDATE deltas SET sealed = 1, header_json = ?, manifest = ? WHERE delta = ? AND sealed = 0',
  )
  const append = db.transaction(
    (key: DeltaKey, known: number | null, batches: readonly BatchRow[], bytes: number) => {
      const delta = known ?? Number(insertDelta.run(key.vmId, key.epoch, key.seq).lastInsertRowid)
      for (const row of batches) {
        const indexes = encodeNumbers(row.blockIndexes)
        insertBatch.run(delta, row.disk, row.batch, indexes, encodeNumbers(row.storedBytes), row.payload)
      }
      grow.run(bytes, delta)
      return delta
    },
  )
  return {
    append(key, known, batches) {
      const bytes = batches.reduce((sum, batch) => sum + rowBytes(batch), 0)
      const delta = append.immediate(key, known, batches, bytes)
      count(delta, key.vmId, bytes)
      return delta
    },
    seal(delta, header, manifest) {
      const { changes } = seal.run(JSON.stringify(header), manifest, delta)
      if (changes !== 1) throw new Error(`delta ${delta} is not there to be sealed`)
    },
  }
}

function readers(db: Sqlite): Pick<DeltaRows, 'next' | 'bySeq' | 'batch'> {
  const columns = 'SELECT delta, seq, epoch, header_json, manifest FROM deltas'
  const next = db.prepare<[string, number], RawDelta>(
    `${columns} WHERE vm_id = ? AND seq > ? AND sealed = 1 ORDER BY seq LIMIT 1`,
  )
  const bySeq = db.prepare<[string, number], RawDelta>(
    `${columns} WHERE vm_id = ? AND seq = ? AND sealed = 1`,
  )
  const batch = db.prepare<
    [number, number, number],
    { block_indexes: Buffer; block_sizes: Buffer; payload: Buffer }
  >('SELECT block_indexes, block_sizes, payload FROM batches WHERE delta = ? AND disk = ? AND batch = ?')
  return {
    next: (vm, afterSeq) => fromRaw(next.get(vm, afterSeq)),
    bySeq: (vm, seq) => fromRaw(bySeq.get(vm, seq)),
    batch(key) {
      const raw = batch.get(key.delta, key.disk, key.batch)
      if (!raw) return undefined
      return {
        blockIndexes: decodeNumbers(raw.block_indexes),
        storedBytes: decodeNumbers(raw.block_sizes),
        payload: raw.payload,
      }
    },
  }
}

function removers(db: Sqlite, discount: (delta: number) => void): Pick<DeltaRows, 'dead' | 'deleteSome'> {
  const dead = db.prepare<[number], { delta: number }>(
    'SELECT delta FROM deltas LEFT JOIN vms USING (vm_id) WHERE vms.vm_id IS NULL OR vms.needs_sync IS NOT NULL ' +
      'OR deltas.seq <= vms.acked_seq OR (deltas.sealed = 0 AND deltas.delta <> ?)',
  )
  const deleteBatches = db.prepare<[number, number]>(
    'DELETE FROM batches WHERE rowid IN (SELECT rowid FROM batches WHERE delta = ? LIMIT ?)',
  )
  const deleteDelta = db.prepare<[number]>('DELETE FROM deltas WHERE delta = ?')
  return {
    dead: (exceptDelta) => dead.all(exceptDelta ?? -1).map((row) => row.delta),
    // The delta's own row goes last, so that what is left after a crash is still known to be garbage.
    deleteSome(delta) {
      if (deleteBatches.run(delta, DELETE_BATCHES).changes === DELETE_BATCHES) return true
      deleteDelta.run(delta)
      discount(delta)
      return false
    },
  }
}

function fromRaw(raw: RawDelta | undefined): DeltaRow | undefined {
  if (!raw) return undefined
  const header = deltaHeader.parse(JSON.parse(raw.header_json))
  return { delta: raw.delta, seq: raw.seq, epoch: raw.epoch, header, manifest: raw.manifest }
}

function encodeNumbers(numbers: readonly number[]): Buffer {
  const bytes = Buffer.alloc(numbers.length * 4)
  numbers.forEach((number, i) => {
    bytes.writeUInt32LE(number, i * 4)
  })
  return bytes
}

function decodeNumbers(bytes: Buffer): number[] {
  return Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readUInt32LE(i * 4))
}
