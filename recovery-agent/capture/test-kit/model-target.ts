/** A target that keeps whole disks in memory and hashes what it wrote: what the capture engine is held against. */
import { unpackBatch } from '#shared/blocks/batch.ts'
import { BLOCK_BYTES, blockCountOf } from '#shared/blocks/block.ts'
import {
  GROUP_BYTES,
  GROUP_CHILDREN,
  groupCountOf,
  HASH_BYTES,
  leafOf,
  nodeOf,
  rootOf,
} from '#shared/blocks/hash-tree.ts'
import type { DiskId, VmId } from '#shared/ids.ts'
import { openManifest } from '#shared/trust/point-manifest.ts'
import type { BatchRequest, CaptureEngine, SealedDelta, StoredBatch } from '../port.ts'

export class ModelTarget {
  /** Padded to whole blocks. */
  readonly disks = new Map<DiskId, { sizeBytes: number; bytes: Buffer }>()
  seq = 0
  appliedBlocks = 0

  clone(): ModelTarget {
    const copy = new ModelTarget()
    copy.seq = this.seq
    for (const [id, { sizeBytes, bytes }] of this.disks)
      copy.disks.set(id, { sizeBytes, bytes: Buffer.from(bytes) })
    return copy
  }

  resize(disks: readonly { readonly diskId: DiskId; readonly sizeBytes: number }[]): void {
    const before = new Map(this.disks)
    this.disks.clear()
    for (const { diskId, sizeBytes } of disks) {
      const bytes = Buffer.alloc(blockCountOf(sizeBytes) * BLOCK_BYTES)
      before.get(diskId)?.bytes.copy(bytes)
      this.disks.set(diskId, { sizeBytes, bytes })
    }
  }

  apply(diskId: DiskId, batch: StoredBatch): void {
    const disk = this.disks.get(diskId)
    if (!disk) throw new Error(`no disk ${diskId}`)
    const blocks = unpackBatch(batch)
    batch.blockIndexes.forEach((blockIndex, i) => {
      const start = blockIndex * BLOCK_BYTES
      if (start >= disk.bytes.length) throw new Error(`block ${blockIndex} is beyond the end`)
      const block = blocks[i]
      if (block) block.copy(disk.bytes, start)
      else disk.bytes.fill(0, start, start + BLOCK_BYTES)
      this.appliedBlocks++
    })
  }

  leaves(diskId: DiskId, group: number): Buffer {
    const leaves = Buffer.alloc(GROUP_BYTES)
    const bytes = this.disks.get(diskId)?.bytes ?? Buffer.alloc(0)
    for (let i = 0; i < GROUP_CHILDREN; i++) {
      const start = (group * GROUP_CHILDREN + i) * BLOCK_BYTES
      if (start < bytes.length)
        leafOf(bytes.subarray(start, start + BLOCK_BYTES)).copy(leaves, i * HASH_BYTES)
    }
    return leaves
  }

  nodes(diskId: DiskId, groupCount: number): Buffer {
    return Buffer.concat(
      Array.from({ length: groupCount }, (_, group) => nodeOf(this.leaves(diskId, group), 1)),
    )
  }

  /** Throws unless the signed roots are those of the bytes held here. */
  attest(encoded: Uint8Array, publicKey: Uint8Array): void {
    const manifest = openManifest(encoded, publicKey)
    if (manifest.disks.length !== this.disks.size) throw new Error('the manifest names other disks')
    for (const { diskId, sizeBytes, root } of manifest.disks) {
      const own = rootOf(this.nodes(diskId, groupCountOf(sizeBytes)), sizeBytes)
      if (!own.equals(root)) throw new Error(`root of ${diskId} at ${manifest.seq} differs`)
    }
    this.seq = manifest.seq
  }
}

export interface Replication {
  readonly engine: CaptureEngine
  readonly target: ModelTarget
  readonly vmId: VmId
  readonly publicKey: Uint8Array
}

export async function batchesOf(
  engine: CaptureEngine,
  { vmId, seq, firstSeq, disks }: SealedDelta,
  owed?: BatchRequest['owed'],
): Promise<[DiskId, StoredBatch][]> {
  const batches: [DiskId, StoredBatch][] = []
  for (const { diskId, batchCount } of disks)
    for (let batch = 0; batch < batchCount; batch++) {
      const request = { vmId, seq, firstSeq, diskId, batch, ...(owed ? { owed } : {}) }
      batches.push([diskId, await engine.readBatch(request)])
    }
  return batches
}

export async function applyDelta(replication: Replication, delta: SealedDelta): Promise<void> {
  const { engine, target, publicKey } = replication
  if (delta.baseSeq !== target.seq)
    throw new Error(`delta ${delta.seq} stands on ${delta.baseSeq}, not ${target.seq}`)
  target.resize(delta.disks)
  for (const [diskId, batch] of await batchesOf(engine, delta)) target.apply(diskId, batch)
  target.attest(delta.manifest, publicKey)
}

/** Sends and acknowledges whatever is buffered; answers how many deltas. */
export async function drainAll(replication: Replication): Promise<number> {
  const { engine, target, vmId } = replication
  for (let count = 0; ; count++) {
    const delta = await engine.nextDelta(vmId, target.seq)
    if (!delta) return count
    await applyDelta(replication, delta)
    await engine.acknowledge(vmId, delta.seq)
  }
}

/** One whole synchronization; answers the blocks it sent. */
export async function synchronize(
  replication: Replication,
  beforeCommit: () => Promise<void> = async () => {},
): Promise<number> {
  const { engine, target, vmId, publicKey } = replication
  await using session = await engine.openSync(vmId, { newestSeq: target.seq })
  const before = target.appliedBlocks
  target.resize(session.disks)
  for (const { diskId, groupCount } of session.disks) {
    const targetNodes = target.nodes(diskId, groupCount)
    for (const group of await session.differingGroups({ diskId, first: 0, targetNodes })) {
      const targetLeaves = target.leaves(diskId, group)
      const request = { diskId, group, targetLeaves, firstBatch: 0, compress: true }
      for (const batch of await session.differingBlocks(request)) target.apply(diskId, batch)
    }
  }
  const { manifest } = await session.manifest()
  target.attest(manifest, publicKey)
  await beforeCommit()
  await session.commit()
  return target.appliedBlocks - before
}
