/**
 * The header of a qcow2 file, version 3 (QEMU docs/interop/qcow2.txt, "Header"), in the one shape Hotsite writes:
 * 64 KiB clusters (our block), 16-bit refcounts, no features, no snapshots, no encryption, and the backing format
 * named in a header extension, so that QEMU never probes it. Everything is big-endian and fits the first cluster.
 */
import { assert } from '#shared/assert.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'

export const CLUSTER_BYTES = 65_536
const MAGIC = 0x514649fb
const HEADER_BYTES = 104
const REFCOUNT_ORDER = 4
const BACKING_FORMAT_EXTENSION = 0xe2792aca
/** Of the specification. */
const MAX_BACKING_NAME_BYTES = 1023

export interface LayerHeader {
  readonly sizeBytes: number
  /** Relative to the folder of the file; null for a base. */
  readonly backingName: string | null
  readonly l1Offset: number
  readonly l1Entries: number
  readonly refcountTableOffset: number
  readonly refcountTableClusters: number
}

/** The bytes from offset 0; the rest of the cluster is zeros. */
export function encodeHeader(header: LayerHeader): Buffer {
  const name = Buffer.from(header.backingName ?? '')
  assert(name.length <= MAX_BACKING_NAME_BYTES, `backing file name of ${name.length} bytes`)
  const extension = header.backingName === null ? Buffer.alloc(8) : backingFormatExtension('qcow2')
  const bytes = Buffer.alloc(HEADER_BYTES + extension.length + name.length)
  bytes.writeUInt32BE(MAGIC, 0)
  bytes.writeUInt32BE(3, 4)
  if (name.length > 0) {
    bytes.writeBigUInt64BE(BigInt(HEADER_BYTES + extension.length), 8)
    bytes.writeUInt32BE(name.length, 16)
  }
  bytes.writeUInt32BE(16, 20)
  bytes.writeBigUInt64BE(BigInt(header.sizeBytes), 24)
  bytes.writeUInt32BE(header.l1Entries, 36)
  bytes.writeBigUInt64BE(BigInt(header.l1Offset), 40)
  bytes.writeBigUInt64BE(BigInt(header.refcountTableOffset), 48)
  bytes.writeUInt32BE(header.refcountTableClusters, 56)
  bytes.writeUInt32BE(REFCOUNT_ORDER, 96)
  bytes.writeUInt32BE(HEADER_BYTES, 100)
  extension.copy(bytes, HEADER_BYTES)
  name.copy(bytes, HEADER_BYTES + extension.length)
  return bytes
}

/** Type, length, text padded to 8 bytes; then the extension that ends the list. */
function backingFormatExtension(format: string): Buffer {
  const padded = Math.ceil(format.length / 8) * 8
  const bytes = Buffer.alloc(8 + padded + 8)
  bytes.writeUInt32BE(BACKING_FORMAT_EXTENSION, 0)
  bytes.writeUInt32BE(format.length, 4)
  bytes.write(format, 8)
  return bytes
}

/** Refuses, with `layer-damaged`, whatever this program would not have written. */
export function decodeHeader(cluster: Buffer, path: string): LayerHeader {
  const refuse = (what: string): never => {
    throw new HotsiteError('layer-damaged', `${path} is not a layer of Hotsite: ${what}`, {
      details: { path },
    })
  }
  if (cluster.readUInt32BE(0) !== MAGIC) refuse('no qcow2 magic')
  const version = cluster.readUInt32BE(4)
  if (version !== 3) refuse(`qcow2 version ${version}, expected 3`)
  if (cluster.readUInt32BE(20) !== 16) refuse('clusters are not 64 KiB')
  if (cluster.readUInt32BE(32) !== 0) refuse('encrypted')
  if (cluster.readUInt32BE(60) !== 0) refuse('it has internal snapshots')
  if (cluster.readBigUInt64BE(72) !== 0n) refuse('it has incompatible features')
  if (cluster.readUInt32BE(96) !== REFCOUNT_ORDER) refuse('refcounts are not 16 bit')
  const nameOffset = Number(cluster.readBigUInt64BE(8))
  const nameBytes = cluster.readUInt32BE(16)
  if (nameOffset + nameBytes > CLUSTER_BYTES) refuse('backing file name outside of the header')
  return {
    sizeBytes: Number(cluster.readBigUInt64BE(24)),
    backingName:
      nameOffset === 0 ? null : cluster.subarray(nameOffset, nameOffset + nameBytes).toString('utf8'),
    l1Offset: Number(cluster.readBigUInt64BE(40)),
    l1Entries: cluster.readUInt32BE(36),
    refcountTableOffset: Number(cluster.readBigUInt64BE(48)),
    refcountTableClusters: cluster.readUInt32BE(56),
  }
}
