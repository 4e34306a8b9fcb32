/** L1, L2 and refcount tables as bytes (QEMU docs/interop/qcow2.txt, "Cluster mapping" and "Host cluster management"). */
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { ABSENT, L2_ENTRIES, ZERO } from './cluster-map.ts'
import { CLUSTER_BYTES } from './header.ts'

export const ENTRIES_PER_CLUSTER = CLUSTER_BYTES / 8
export const REFCOUNTS_PER_BLOCK = CLUSTER_BYTES / 2
/** Bit 63: the refcount is exactly 1. Nothing of ours is ever shared, so it is always set on what is allocated. */
const COPIED_HIGH = 0x8000_0000
const COMPRESSED_HIGH = 0x4000_0000
const ZERO_FLAG = 1
const HIGH = 2 ** 32

export function l1EntriesOf(sizeBytes: number): number {
  return Math.ceil(sizeBytes / (L2_ENTRIES * CLUSTER_BYTES))
}

function writeReference(target: Buffer, position: number, offsetBytes: number, high: number): void {
  target.writeUInt32BE((Math.floor(offsetBytes / HIGH) | high) >>> 0, position)
  target.writeUInt32BE(offsetBytes % HIGH, position + 4)
}

/** `bytes`: a cluster to use for it. */
export function encodeL2(table: Int32Array, bytes: Buffer = Buffer.alloc(CLUSTER_BYTES)): Buffer {
  bytes.fill(0)
  for (let i = 0; i < L2_ENTRIES; i++) {
    const state = table[i] ?? ABSENT
    if (state === ABSENT) continue
    if (state === ZERO) bytes.writeUInt32BE(ZERO_FLAG, i * 8 + 4)
    else writeReference(bytes, i * 8, state * CLUSTER_BYTES, COPIED_HIGH)
  }
  return bytes
}

export function decodeL2(bytes: Buffer, path: string): Int32Array {
  const table = new Int32Array(L2_ENTRIES)
  for (let i = 0; i < L2_ENTRIES; i++) {
    const high = bytes.readUInt32BE(i * 8)
    const low = bytes.readUInt32BE(i * 8 + 4)
    if (high === 0 && low === 0) continue
    if (low & ZERO_FLAG) table[i] = ZERO
    else table[i] = clusterOf(high, low, path)
  }
  return table
}

export const PAGE_BYTES = 4096
const zeroPage = Buffer.alloc(PAGE_BYTES)

/** The part of a table that is not a hole: whole pages up to the last byte that is not zero, one at least. */
export function withoutTrailingZeros(bytes: Buffer): Buffer {
  let end = bytes.length
  while (end > PAGE_BYTES && bytes.subarray(end - PAGE_BYTES, end).equals(zeroPage)) end -= PAGE_BYTES
  return bytes.subarray(0, end)
}

/**
 * One offset for each L2 table; 0 where there is none. `offsets` may be short of whole clusters. `scratch`: a cluster
 * to use for it when one is enough.
 */
export function encodeReferences(
  offsets: readonly number[],
  flags: 'copied' | 'plain',
  scratch?: Buffer,
): Buffer {
  const clusters = Math.max(1, Math.ceil(offsets.length / ENTRIES_PER_CLUSTER))
  const bytes = (clusters === 1 && scratch?.fill(0)) || Buffer.alloc(clusters * CLUSTER_BYTES)
  offsets.forEach((offsetBytes, i) => {
    if (offsetBytes > 0) writeReference(bytes, i * 8, offsetBytes, flags === 'copied' ? COPIED_HIGH : 0)
  })
  return bytes
}

/** Cluster numbers; 0 where the entry is empty. */
export function decodeReferences(bytes: Buffer, entries: number, path: string): number[] {
  const clusters: number[] = []
  for (let i = 0; i < entries; i++) {
    const high = bytes.readUInt32BE(i * 8)
    const low = bytes.readUInt32BE(i * 8 + 4)
    clusters.push(high === 0 && low === 0 ? 0 : clusterOf(high, low, path))
  }
  return clusters
}

function clusterOf(high: number, low: number, path: string): number {
  const offsetBytes = (high & 0x00ff_ffff) * HIGH + low
  if (high & COMPRESSED_HIGH || offsetBytes === 0 || offsetBytes % CLUSTER_BYTES !== 0) {
    throw new HotsiteError('layer-damaged', `${path}: a table entry does not point to a cluster`, {
      details: { path },
    })
  }
  return offsetBytes / CLUSTER_BYTES
}

/** Which clusters of a file are in use, and the next free ones: one bit each, so 2 MiB for a file of 1 TiB. */
export class ClusterUse {
  #bits: Uint8Array
  /** One above the highest cluster in use. */
  end = 0
  #searchFrom = 1

  constructor(expectedClusters = 1024) {
    this.#bits = new Uint8Array(Math.max(1, Math.ceil(expectedClusters / 8)))
  }

  has(cluster: number): boolean {
    return ((this.#bits[cluster >>> 3] ?? 0) & (1 << (cluster & 7))) !== 0
  }

  add(cluster: number): void {
    const at = cluster >>> 3
    if (at >= this.#bits.length) {
      const grown = new Uint8Array(Math.max(at + 1, this.#bits.length * 2))
      grown.set(this.#bits)
      this.#bits = grown
    }
    this.#bits[at] = (this.#bits[at] ?? 0) | (1 << (cluster & 7))
    this.end = Math.max(this.end, cluster + 1)
  }

  /** `end` stays: what is at the end of the file may be free. */
  remove(cluster: number): void {
    const at = cluster >>> 3
    if (at < this.#bits.length) this.#bits[at] = (this.#bits[at] ?? 0) & ~(1 << (cluster & 7))
    this.#searchFrom = Math.min(this.#searchFrom, cluster)
  }

  /** A free cluster inside of the file when there is one, otherwise the next one behind its end. */
  allocate(): number {
    let cluster = this.#searchFrom
    while (cluster < this.end) {
      // Eight at a time through what is full.
      if ((cluster & 7) === 0 && this.#bits[cluster >>> 3] === 0xff) cluster += 8
      else if (this.has(cluster)) cluster++
      else break
    }
    this.#searchFrom = cluster + 1
    this.add(cluster)
    return cluster
  }

  /** `count` neighbouring clusters behind the end. */
  allocateRun(count: number): number {
    const first = this.end
    for (let i = 0; i < count; i++) this.add(first + i)
    return first
  }

  /** Clusters in use, ascending. */
  *clusters(): Generator<number, void> {
    for (let at = 0; at * 8 < this.end; at++) {
      if (this.#bits[at] === 0) continue
      for (let cluster = at * 8; cluster < at * 8 + 8; cluster++) if (this.has(cluster)) yield cluster
    }
  }

  /** The refcount block covering clusters from `blockIndex` × 32768 on: 1 for each in use. `bytes`: a cluster to use for it. */
  refcountBlock(blockIndex: number, bytes: Buffer = Buffer.alloc(CLUSTER_BYTES)): Buffer {
    bytes.fill(0)
    const first = blockIndex * REFCOUNTS_PER_BLOCK
    const last = Math.min(this.end, first + REFCOUNTS_PER_BLOCK)
    for (let cluster = first; cluster < last; cluster++) {
      if (this.has(cluster)) bytes[(cluster - first) * 2 + 1] = 1
    }
    return bytes
  }
}

/**
 * Adds refcount blocks until they cover every cluster in use, themselves included. `blocks` holds the cluster of each
 * refcount block there is already, 0 for none; the result is complete.
 */
export function coverWithRefcounts(use: ClusterUse, blocks: readonly number[]): number[] {
  const covered = [...blocks]
  for (let i = 0; i * REFCOUNTS_PER_BLOCK < use.end; i++) {
    if (!covered[i]) covered[i] = use.allocate()
  }
  return covered
}
