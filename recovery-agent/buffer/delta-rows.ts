/** Deltas and their batches as rows, and how much of the buffer they fill (I13). */
import type { PackedBatch } from '#shared/blocks/batch.ts'
import { type VmId, vmId } from '#shared/ids.ts'
import type { Sqlite } from '#shared/sqlite.ts'
import { type DeltaHeader, deltaHeader } from './delta-header.ts'
import { damagedRow, ensureIntact, rowChecksum } from './row-checksum.ts'

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
  /** Throws `buffer-damaged`, like everything that reads. */
  next(vm: VmId, afterSeq: number): DeltaRow | undefined
  bySeq(vm: VmId, seq: number): DeltaRow | undefined
  /** A batch the header announces; one that is gone is damage too. */
  batch(key: { delta: number; disk: number; batch: number }): PackedBatch
  /** Of a batch only which blocks it has, not held against its checksum: for whoever finds out by other means. */
  blockIndexes(key: { delta: number; disk: number; batch: number }): readonly number[]
  /** The highest seq any row of this VM bears that is intact, sealed or not; 0: none. */
  lastSeq(vm: VmId): number
  bufferedBytes(vm: VmId): number
  totalBytes(): number
  /** Deltas that can never be sent: see garbage.ts. `writing`: unsealed ones to spare. Damaged ones are among them, and batches whose delta is gone. */
  dead(writing: ReadonlySet<number>): readonly number[]
  /** Deletes one transaction's worth; false: the delta is gone entirely. */
  deleteSome(delta: number): boolean
}

/** Its VM still owes the target a point for which the delta is needed (owed.ts). */
const isOwed =
  "EXISTS (SELECT 1 FROM json_each(iif(json_valid(vms.owed), vms.owed, '[]')) " +
  "WHERE deltas.seq > value->>'baseSeq' AND deltas.seq <= value->>'topSeq')"

/** Deletes run in transactions of their own, so that freed pages are not journalled together with new ones. */
const DELETE_BATCHES = 32

interface RawDelta {
  delta: number
  vm_id: string
  epoch: number
  seq: number
  sealed: number
  stored_bytes: number
  header_json: string | null
  manifest: Buffer | null
  checksum: number
}

interface RawBatch {
  delta: number
  disk: number
  batch: number
  block_indexes: Buffer
  block_sizes: Buffer
  payload: Buffer
  checksum: number
}

const deltaValues = (raw: Omit<RawDelta, 'checksum'>) => [
  raw.delta,
  raw.vm_id,
  raw.epoch,
  raw.seq,
  raw.sealed,
  raw.stored_bytes,
  raw.header_json,
  raw.manifest,
]
export const deltaChecksum = (raw: Omit<RawDelta, 'checksum'>): number =>
  rowChecksum('deltas', deltaValues(raw))
export const batchChecksum = (raw: Omit<RawBatch, 'checksum'>): number =>
  rowChecksum('batches', [raw.delta, raw.disk, raw.batch, raw.block_indexes, raw.block_sizes, raw.payload])

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
  const damaged = new Set<number>()
  // What a damaged row says of its size is not believed either; it is deleted before long.
  for (const raw of db.prepare<[], RawDelta>('SELECT * FROM deltas').iterate()) {
    if (raw.checksum === deltaChecksum(raw)) count(raw.delta, vmId.parse(raw.vm_id), raw.stored_bytes)
    else damaged.add(raw.delta)
  }
  const sizeOf = (delta: number) => sizes.get(delta)?.bytes ?? 0
  return {
    ...writers(db, count, sizeOf),
    ...readers(db, damaged),
    ...removers(db, discount, { damaged, counted: sizes }),
    ...counters(filled),
  }
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
  sizeOf: (delta: number) => number,
): Pick<DeltaRows, 'append' | 'seal'> {
  const insertDelta = db.prepare<[string, number, number]>(
    'INSERT INTO deltas (vm_id, epoch, seq, sealed, stored_bytes) VALUES (?, ?, ?, 0, 0)',
  )
  const insertBatch = db.prepare<[RawBatch]>(
    'INSERT OR REPLACE INTO batches (delta, disk, batch, block_indexes, block_sizes, payload, checksum) ' +
      'VALUES (@delta, @disk, @batch, @block_indexes, @block_sizes, @payload, @checksum)',
  )
  const select = db.prepare<[number], RawDelta>('SELECT * FROM deltas WHERE delta = ?')
  const update = db.prepare<[RawDelta]>(
    'UPDATE deltas SET sealed = @sealed, stored_bytes = @stored_bytes, header_json = @header_json, ' +
      'manifest = @manifest, checksum = @checksum WHERE delta = @delta',
  )
  const append = db.transaction(
    (key: DeltaKey, known: number | null, batches: readonly BatchRow[], bytes: number) => {
      const delta = known ?? Number(insertDelta.run(key.vmId, key.epoch, key.seq).lastInsertRowid)
      for (const row of batches) {
        const raw = {
          delta,
          disk: row.disk,
          batch: row.batch,
          block_indexes: encodeNumbers(row.blockIndexes),
          block_sizes: encodeNumbers(row.storedBytes),
          payload: row.payload,
        }
        insertBatch.run({ ...raw, checksum: batchChecksum(raw) })
      }
      const raw = {
        delta,
        vm_id: key.vmId,
        epoch: key.epoch,
        seq: key.seq,
        sealed: 0,
        stored_bytes: sizeOf(delta) + bytes,
        header_json: null,
        manifest: null,
      }
      update.run({ ...raw, checksum: deltaChecksum(raw) })
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
      const before = select.get(delta)
      if (before?.sealed !== 0) throw new Error(`delta ${delta} is not there to be sealed`)
      ensureDelta(before)
      const raw = {
        ...before,
        sealed: 1,
        header_json: JSON.stringify(header),
        manifest: Buffer.from(manifest),
      }
      update.run({ ...raw, checksum: deltaChecksum(raw) })
    },
  }
}

function readers(
  db: Sqlite,
  damaged: Set<number>,
): Pick<DeltaRows, 'next' | 'bySeq' | 'lastSeq' | 'batch' | 'blockIndexes'> {
  const next = db.prepare<[string, number], RawDelta>(
    'SELECT * FROM deltas WHERE vm_id = ? AND seq > ? AND sealed = 1 ORDER BY seq LIMIT 1',
  )
  const bySeq = db.prepare<[string, number], RawDelta>(
    'SELECT * FROM deltas WHERE vm_id = ? AND seq = ? AND sealed = 1',
  )
  const ofVm = db.prepare<[string], RawDelta>('SELECT * FROM deltas WHERE vm_id = ?')
  const batch = db.prepare<[number, number, number], RawBatch>(
    'SELECT * FROM batches WHERE delta = ? AND disk = ? AND batch = ?',
  )
  const indexes = db.prepare<[number, number, number], Pick<RawBatch, 'block_indexes'>>(
    'SELECT block_indexes FROM batches WHERE delta = ? AND disk = ? AND batch = ?',
  )
  const read = (raw: RawDelta | undefined) => {
    if (!raw) return undefined
    try {
      return fromRaw(raw)
    } catch (error) {
      damaged.add(raw.delta)
      throw error
    }
  }
  return {
    next: (vm, afterSeq) => read(next.get(vm, afterSeq)),
    bySeq: (vm, seq) => read(bySeq.get(vm, seq)),
    lastSeq: (vm) =>
      ofVm
        .all(vm)
        .reduce((last, raw) => (raw.checksum === deltaChecksum(raw) ? Math.max(last, raw.seq) : last), 0),
    blockIndexes(key) {
      const raw = indexes.get(key.delta, key.disk, key.batch)
      if (!raw) throw damagedRow('batches', `${key.delta}/${key.disk}/${key.batch}`, 'it is gone')
      return decodeNumbers(raw.block_indexes)
    },
    batch(key) {
      const raw = batch.get(key.delta, key.disk, key.batch)
      const name = `${key.delta}/${key.disk}/${key.batch}`
      if (!raw) throw damagedRow('batches', name, 'it is gone')
      if (raw.checksum !== batchChecksum(raw)) throw damagedRow('batches', name, 'its checksum does not hold')
      return {
        blockIndexes: decodeNumbers(raw.block_indexes),
        storedBytes: decodeNumbers(raw.block_sizes),
        payload: raw.payload,
      }
    },
  }
}

function removers(
  db: Sqlite,
  discount: (delta: number) => void,
  { damaged, counted }: { readonly damaged: Set<number>; readonly counted: ReadonlyMap<number, unknown> },
): Pick<DeltaRows, 'dead' | 'deleteSome'> {
  const dead = db.prepare<[string], { delta: number }>(
    'SELECT delta FROM deltas LEFT JOIN vms USING (vm_id) WHERE vms.vm_id IS NULL OR vms.needs_sync IS NOT NULL ' +
      `OR (deltas.seq <= vms.acked_seq AND NOT ${isOwed}) OR (deltas.sealed = 0 AND deltas.delta NOT IN (SELECT value FROM json_each(?)))`,
  )
  const all = db.prepare<[], { delta: number }>('SELECT delta FROM deltas')
  const nextOwner = db.prepare<[number], { delta: number | null }>(
    'SELECT min(delta) AS delta FROM batches WHERE delta > ?',
  )
  const deleteBatches = db.prepare<[number, number]>(
    'DELETE FROM batches WHERE rowid IN (SELECT rowid FROM batches WHERE delta = ? LIMIT ?)',
  )
  const deleteDelta = db.prepare<[number]>('DELETE FROM deltas WHERE delta = ?')
  return {
    dead: (writing) => {
      const known = new Set(all.all().map(({ delta }) => delta))
      const lost = [...counted.keys()].filter((delta) => !known.has(delta))
      // A skip scan: one step for each delta, not for each batch.
      for (let at = nextOwner.get(-1)?.delta; at !== null && at !== undefined; at = nextOwner.get(at)?.delta)
        if (!known.has(at)) lost.push(at)
      const ordinary = dead.all(JSON.stringify([...writing])).map(({ delta }) => delta)
      return [...new Set([...ordinary, ...damaged, ...lost])]
    },
    // The delta's own row goes last, so that what is left after a crash is still known to be garbage.
    deleteSome(delta) {
      if (deleteBatches.run(delta, DELETE_BATCHES).changes === DELETE_BATCHES) return true
      deleteDelta.run(delta)
      discount(delta)
      damaged.delete(delta)
      return false
    },
  }
}

function ensureDelta(raw: RawDelta): void {
  const key = `${raw.delta} (VM ${raw.vm_id}, seq ${raw.seq})`
  ensureIntact('deltas', key, { checksum: raw.checksum, values: deltaValues(raw) })
}

function fromRaw(raw: RawDelta): DeltaRow {
  ensureDelta(raw)
  const header = deltaHeader.parse(JSON.parse(raw.header_json ?? 'null'))
  return {
    delta: raw.delta,
    seq: raw.seq,
    epoch: raw.epoch,
    header,
    manifest: raw.manifest ?? Buffer.alloc(0),
  }
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
