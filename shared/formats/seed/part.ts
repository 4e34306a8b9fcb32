/**
 * One part of a seed: the blocks of one range of groups of one disk, readable by itself.
 *
 *   part     magic "HSSEED01" (8) | salt (16) | records
 *   record   length of the plaintext (u32 LE) | ciphertext | GCM tag (16)
 *
 * The key of a part is HKDF-SHA256(seed key, salt of the part, "hotsite seed part"), so that two parts, also two
 * writings of the same range, never share one. A record is AES-256-GCM with its number as nonce and (magic, salt,
 * number, length) as associated data: no record can be altered, left out, repeated, reordered or moved to another
 * part. The first record says what the part holds, the last that it is whole; between them are batches in the stored
 * form of Blocks (hotsite.proto): nothing is expanded or compressed again on the way into a replica.
 */
import { createCipheriv, createDecipheriv, hkdfSync } from 'node:crypto'
import { z } from 'zod'
import { BATCH_BLOCKS, BATCH_RAW_BYTES, type PackedBatch } from '../../blocks/batch.ts'
import { HotsiteError } from '../../errors/hotsite-error.ts'
import { diskId, vaultId, vmId } from '../../ids.ts'

export const SEED_KEY_BYTES = 32
export const SALT_BYTES = 16
const MAGIC = Buffer.from('HSSEED01')
export const PART_HEADER_BYTES: number = MAGIC.length + SALT_BYTES
const TAG_BYTES = 16
const NONCE_BYTES = 12
const ENTRY_BYTES = 8
/** What a record costs beside its plaintext. */
export const RECORD_OVERHEAD_BYTES: number = 4 + TAG_BYTES
/** A batch of raw blocks with its table, rounded up; a longer record is not one of ours. */
export const RECORD_MAX_BYTES: number = BATCH_RAW_BYTES + 64 * 1024

export const partContent = z.strictObject({
  vaultId,
  vmId,
  diskId,
  sizeBytes: z.int().nonnegative(),
  /** Blocks of groups [firstGroup, endGroup) that are not named in the part are zero. */
  firstGroup: z.int().nonnegative(),
})
export type PartContent = z.infer<typeof partContent>

export const partEnd = z.strictObject({ endGroup: z.int().nonnegative(), blocks: z.int().nonnegative() })
export type PartEnd = z.infer<typeof partEnd>

export type PartRecord =
  | { readonly kind: 'content'; readonly content: PartContent }
  | { readonly kind: 'batch'; readonly batch: PackedBatch }
  | { readonly kind: 'end'; readonly end: PartEnd }

const CONTENT = 0
const BATCH = 1
const END = 2

class PartCipher {
  readonly #key: Buffer
  readonly #header: Buffer
  #number = 0

  constructor(seedKey: Uint8Array, header: Buffer) {
    this.#header = header
    const salt = header.subarray(MAGIC.length)
    this.#key = Buffer.from(hkdfSync('sha256', seedKey, salt, 'hotsite seed part', 32))
  }

  seal(plain: readonly Buffer[]): Buffer[] {
    const length = Buffer.alloc(4)
    length.writeUInt32LE(plain.reduce((sum, piece) => sum + piece.length, 0))
    const { nonce, data } = this.#next(length)
    const cipher = createCipheriv('aes-256-gcm', this.#key, nonce)
    cipher.setAAD(data)
    const pieces = plain.map((piece) => cipher.update(piece))
    cipher.final()
    return [length, ...pieces, cipher.getAuthTag()]
  }

  /** undefined: not what was sealed here. */
  open(length: Buffer, sealed: Buffer): Buffer | undefined {
    const { nonce, data } = this.#next(length)
    const decipher = createDecipheriv('aes-256-gcm', this.#key, nonce)
    decipher.setAAD(data)
    decipher.setAuthTag(sealed.subarray(sealed.length - TAG_BYTES))
    const plain = decipher.update(sealed.subarray(0, sealed.length - TAG_BYTES))
    try {
      decipher.final()
      return plain
    } catch {
      return undefined
    }
  }

  #next(length: Buffer): { readonly nonce: Buffer; readonly data: Buffer } {
    const nonce = Buffer.alloc(NONCE_BYTES)
    nonce.writeUInt32LE(this.#number++)
    return { nonce, data: Buffer.concat([this.#header, nonce, length]) }
  }
}

/** Makes the bytes of a part, piece by piece, in the order they are to be written. */
export class PartEncoder {
  readonly header: Buffer
  readonly #cipher: PartCipher

  constructor(seedKey: Uint8Array, salt: Uint8Array) {
    this.header = Buffer.concat([MAGIC, salt])
    this.#cipher = new PartCipher(seedKey, this.header)
  }

  content(content: PartContent): Buffer[] {
    return this.#cipher.seal([Buffer.from([CONTENT]), Buffer.from(JSON.stringify(content))])
  }

  batch({ blockIndexes, storedBytes, payload }: PackedBatch): Buffer[] {
    const table = Buffer.alloc(3 + blockIndexes.length * ENTRY_BYTES)
    table.writeUInt8(BATCH)
    table.writeUInt16LE(blockIndexes.length, 1)
    for (const [i, blockIndex] of blockIndexes.entries()) {
      table.writeUInt32LE(blockIndex, 3 + i * ENTRY_BYTES)
      table.writeUInt32LE(storedBytes[i] ?? 0, 3 + i * ENTRY_BYTES + 4)
    }
    return this.#cipher.seal([table, payload])
  }

  end(end: PartEnd): Buffer[] {
    return this.#cipher.seal([Buffer.from([END]), Buffer.from(JSON.stringify(end))])
  }
}

/** Reads records of a part. `take(n)` answers the next n bytes, or undefined when the file ends before them. */
export async function* readPart(
  seedKey: Uint8Array,
  take: (bytes: number) => Promise<Buffer | undefined>,
): AsyncGenerator<PartRecord, void> {
  const header = await take(PART_HEADER_BYTES)
  if (!header?.subarray(0, MAGIC.length).equals(MAGIC))
    throw damaged('it does not begin like a part of a seed')
  const cipher = new PartCipher(seedKey, header)
  for (let isFirst = true; ; isFirst = false) {
    const length = await take(4)
    if (!length) throw damaged('it ends too early')
    const plainBytes = length.readUInt32LE()
    if (plainBytes > RECORD_MAX_BYTES) throw damaged('a record is longer than any')
    const sealed = await take(plainBytes + TAG_BYTES)
    if (!sealed) throw damaged('it ends too early')
    const plain = cipher.open(length, sealed)
    if (!plain) throw damaged('a record is not what was written, or the key is another')
    const record = decodeRecord(plain)
    if (isFirst !== (record.kind === 'content')) throw damaged('its records are not in order')
    yield record
    if (record.kind === 'end') return
  }
}

function decodeRecord(plain: Buffer): PartRecord {
  switch (plain[0]) {
    case CONTENT:
      return { kind: 'content', content: partContent.parse(JSON.parse(plain.toString('utf8', 1))) }
    case END:
      return { kind: 'end', end: partEnd.parse(JSON.parse(plain.toString('utf8', 1))) }
    case BATCH:
      return { kind: 'batch', batch: decodeBatch(plain) }
    default:
      throw damaged(`a record is of kind ${plain[0]}, which this version does not know`)
  }
}

function decodeBatch(plain: Buffer): PackedBatch {
  const count = plain.readUInt16LE(1)
  const from = 3 + count * ENTRY_BYTES
  if (count > BATCH_BLOCKS || from > plain.length) throw damaged('a batch holds too many blocks')
  const at = (i: number) => 3 + i * ENTRY_BYTES
  const numbers = Array.from({ length: count }, (_, i) => i)
  return {
    blockIndexes: numbers.map((i) => plain.readUInt32LE(at(i))),
    storedBytes: numbers.map((i) => plain.readUInt32LE(at(i) + 4)),
    payload: plain.subarray(from),
  }
}

function damaged(why: string): HotsiteError {
  return new HotsiteError('seed-damaged', `a part of the seed cannot be read: ${why}`)
}
