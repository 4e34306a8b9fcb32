/**
 * What is durable of a layer that is still being written: one record for each batch, appended and synced only after
 * the data it describes is on stable storage.
 *
 *   record  crc32 (4) | entry count (4) | batch (4) | entries
 *   entry   block index (4) | cluster, -1 for zeros (4) | leaf (32)                       all little-endian
 *
 * A record whose checksum does not hold ends the journal: what follows was never promised to anyone.
 */
import { crc32 } from 'node:zlib'
import { HASH_BYTES } from '#shared/blocks/hash-tree.ts'
import type { BlockFile } from '#shared/formats/block-file.ts'

export interface JournalEntry {
  readonly blockIndex: number
  readonly state: number
  readonly leaf: Buffer
}

const HEADER_BYTES = 12
const ENTRY_BYTES = 8 + HASH_BYTES
/** A batch holds 16 blocks; a count far above it is not a record. */
const MAX_ENTRIES = 4096
const WINDOW_BYTES = 1 << 20

export class Journal {
  readonly #file: BlockFile
  #endBytes = 0
  #pending: Buffer[] = []

  constructor(file: BlockFile) {
    this.#file = file
  }

  /** Reads what is there; later records go behind the last good one. */
  replay(onRecord: (batch: number, entries: readonly JournalEntry[]) => void): void {
    const reader = new WindowReader(this.#file)
    for (;;) {
      const header = reader.take(HEADER_BYTES)
      if (!header) break
      const count = header.readUInt32LE(4)
      if (count === 0 || count > MAX_ENTRIES) break
      const body = reader.take(count * ENTRY_BYTES)
      if (!body || crc32(body, crc32(header.subarray(4))) !== header.readUInt32LE(0)) break
      onRecord(header.readUInt32LE(8), decodeEntries(body))
      this.#endBytes += HEADER_BYTES + body.length
    }
    this.#file.truncate(this.#endBytes)
  }

  add(batch: number, entries: readonly JournalEntry[]): void {
    if (entries.length === 0) return
    this.#pending.push(encodeRecord(batch, entries))
  }

  /** Appends what was added; not yet durable. */
  write(): void {
    if (this.#pending.length === 0) return
    this.#file.write(this.#pending, this.#endBytes)
    this.#endBytes += this.#pending.reduce((sum, record) => sum + record.length, 0)
    this.#pending = []
  }

  sync(): void {
    this.#file.sync()
  }

  close(): void {
    this.#file.close()
  }
}

function encodeRecord(batch: number, entries: readonly JournalEntry[]): Buffer {
  const record = Buffer.allocUnsafe(HEADER_BYTES + entries.length * ENTRY_BYTES)
  record.writeUInt32LE(entries.length, 4)
  record.writeUInt32LE(batch, 8)
  entries.forEach((entry, i) => {
    const at = HEADER_BYTES + i * ENTRY_BYTES
    record.writeUInt32LE(entry.blockIndex, at)
    record.writeInt32LE(entry.state, at + 4)
    entry.leaf.copy(record, at + 8)
  })
  record.writeUInt32LE(crc32(record.subarray(4)), 0)
  return record
}

function decodeEntries(body: Buffer): JournalEntry[] {
  const entries: JournalEntry[] = []
  for (let at = 0; at < body.length; at += ENTRY_BYTES) {
    entries.push({
      blockIndex: body.readUInt32LE(at),
      state: body.readInt32LE(at + 4),
      leaf: Buffer.from(body.subarray(at + 8, at + ENTRY_BYTES)),
    })
  }
  return entries
}

/** Reads a file from the front in large pieces. */
class WindowReader {
  readonly #file: BlockFile
  readonly #sizeBytes: number
  #window: Buffer = Buffer.alloc(0)
  #windowAt = 0
  #position = 0

  constructor(file: BlockFile) {
    this.#file = file
    this.#sizeBytes = file.sizeBytes()
  }

  take(bytes: number): Buffer | undefined {
    if (this.#position + bytes > this.#sizeBytes) return undefined
    const windowEnd = this.#windowAt + this.#window.length
    if (this.#position + bytes > windowEnd) {
      this.#window = Buffer.allocUnsafe(
        Math.min(Math.max(bytes, WINDOW_BYTES), this.#sizeBytes - this.#position),
      )
      this.#windowAt = this.#position
      this.#file.read(this.#window, this.#windowAt)
    }
    const start = this.#position - this.#windowAt
    this.#position += bytes
    return this.#window.subarray(start, start + bytes)
  }
}
