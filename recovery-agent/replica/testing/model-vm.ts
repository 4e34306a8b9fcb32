/** A VM whose disks are maps of blocks: the truth a replica is compared with, and the source of its deltas. */
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs'
import { BatchBuilder } from '#shared/blocks/batch.ts'
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
import { storeBlock } from '#shared/blocks/stored-block.ts'
import type { DiskId, ServerId, VaultId, VmId } from '#shared/ids.ts'
import { replicationPolicy } from '#shared/messages/policy.ts'
import { intBelow, type Rng } from '#shared/rng.ts'
import { generateKeys } from '#shared/trust/keys.ts'
import { signManifest } from '#shared/trust/point-manifest.ts'
import type {
  BlockBatch,
  DeltaHeader,
  DeltaWriter,
  ReplicaStore,
  SealOutcome,
  SignedManifest,
} from '../port.ts'
import type { StoredBlocks } from '../remote.ts'

export const testVm = 'vm-1' as VmId
export const testServer = 'server-a' as ServerId

export interface ModelDisk {
  readonly diskId: DiskId
  readonly sizeBytes: number
  /** Blocks that are not zero. Buffers are never changed, so a shallow copy is a snapshot. */
  readonly blocks: ReadonlyMap<number, Buffer>
}

export interface ModelDelta {
  readonly header: DeltaHeader
  readonly batches: readonly BlockBatch[]
  readonly manifest: SignedManifest
  readonly disks: readonly ModelDisk[]
}

export class ModelVm {
  readonly #rng: Rng
  readonly #disks = new Map<DiskId, ModelDisk>()
  #changed = new Map<DiskId, Set<number>>()
  epoch = 1
  seq = 0
  capturedAtMs = 1_700_000_000_000

  constructor(rng: Rng, sizes: Readonly<Record<string, number>>) {
    this.#rng = rng
    for (const [name, sizeBytes] of Object.entries(sizes)) {
      this.#disks.set(name as DiskId, { diskId: name as DiskId, sizeBytes, blocks: new Map() })
    }
  }

  get disks(): ModelDisk[] {
    return [...this.#disks.values()]
  }

  block(): Buffer {
    const block = Buffer.alloc(BLOCK_BYTES)
    for (let at = 0; at < 64; at += 4) block.writeUInt32LE(intBelow(this.#rng, 2 ** 32), at)
    block.copy(block, BLOCK_BYTES - 64, 0, 64)
    return block
  }

  set(diskId: DiskId, blockIndex: number, content: Buffer | null): void {
    const disk = this.#disk(diskId)
    const blocks = new Map(disk.blocks)
    const inside = disk.sizeBytes - blockIndex * BLOCK_BYTES
    if (content && inside < BLOCK_BYTES) content.fill(0, inside)
    if (content) blocks.set(blockIndex, content)
    else blocks.delete(blockIndex)
    this.#disks.set(diskId, { ...disk, blocks })
    this.#touched(diskId).add(blockIndex)
  }

  /** Random writes, a fifth of them zeros; `spread` limits them to the first blocks. */
  scribble(writes: number, spread = Number.POSITIVE_INFINITY): void {
    for (const { diskId, sizeBytes } of this.disks) {
      for (let i = 0; i < writes; i++) {
        const blockIndex = intBelow(this.#rng, Math.min(spread, blockCountOf(sizeBytes)))
        this.set(diskId, blockIndex, this.#rng.next() < 0.2 ? null : this.block())
      }
    }
  }

  resize(diskId: DiskId, sizeBytes: number): void {
    const disk = this.#disk(diskId)
    const blocks = new Map([...disk.blocks].filter(([index]) => index < blockCountOf(sizeBytes)))
    const last = Math.floor(sizeBytes / BLOCK_BYTES)
    const cut = blocks.get(last)
    this.#disks.set(diskId, { diskId, sizeBytes, blocks })
    const touched = this.#touched(diskId)
    for (const index of [...touched]) if (index >= blockCountOf(sizeBytes)) touched.delete(index)
    if (cut) this.set(diskId, last, Buffer.from(cut))
  }

  addDisk(diskId: DiskId, sizeBytes: number): void {
    this.#disks.set(diskId, { diskId, sizeBytes, blocks: new Map() })
  }

  removeDisk(diskId: DiskId): void {
    this.#disks.delete(diskId)
    this.#changed.delete(diskId)
  }

  /** What changed since the last capture, as the next point. */
  capture(options: { afterMs?: number; kind?: 'delta' | 'sync'; baseSeq?: number } = {}): ModelDelta {
    const baseSeq = options.baseSeq ?? this.seq
    this.seq++
    this.capturedAtMs += options.afterMs ?? 60_000
    const disks = this.disks
    const header: DeltaHeader = {
      vmId: testVm,
      epoch: this.epoch,
      seq: this.seq,
      baseSeq,
      kind: options.kind ?? 'delta',
      capturedAtMs: this.capturedAtMs,
      consistency: 'crash',
      disks: disks.map(({ diskId, sizeBytes }) => ({ diskId, sizeBytes })),
    }
    const batches = disks.flatMap((disk) =>
      batchesOf(
        disk,
        [...this.#touched(disk.diskId)].sort((a, b) => a - b),
      ),
    )
    this.#changed = new Map()
    return { header, batches, manifest: manifestOf(disks, header), disks }
  }

  #disk(diskId: DiskId): ModelDisk {
    const disk = this.#disks.get(diskId)
    if (!disk) throw new Error(`no disk ${diskId}`)
    return disk
  }

  #touched(diskId: DiskId): Set<number> {
    const touched = this.#changed.get(diskId) ?? new Set<number>()
    this.#changed.set(diskId, touched)
    return touched
  }
}

export function batchesOf(disk: ModelDisk, indexes: readonly number[], batchBlocks = 4): BlockBatch[] {
  const batches: BlockBatch[] = []
  for (let at = 0; at < indexes.length; at += batchBlocks) {
    const blockIndexes = indexes.slice(at, at + batchBlocks)
    batches.push({
      diskId: disk.diskId,
      batch: batches.length,
      blockIndexes,
      blocks: blockIndexes.map((index) => disk.blocks.get(index) ?? null),
    })
  }
  return batches
}

/** As it comes off the wire. */
export function storedBatch({ diskId, batch, blockIndexes, blocks }: BlockBatch): StoredBlocks {
  const builder = new BatchBuilder()
  blockIndexes.forEach((blockIndex, i) => {
    const block = blocks[i]
    if (block === 'held') builder.addHeld(blockIndex)
    else builder.add(blockIndex, block ? storeBlock(block, i % 2 === 0) : null)
  })
  return { diskId, batch, ...builder.take() }
}

export function rootOfDisk({ sizeBytes, blocks }: ModelDisk): Buffer {
  const groups = new Map<number, Buffer>()
  for (const [index, block] of blocks) {
    const groupIndex = Math.floor(index / GROUP_CHILDREN)
    const group = groups.get(groupIndex) ?? Buffer.alloc(GROUP_BYTES)
    leafOf(block).copy(group, (index % GROUP_CHILDREN) * HASH_BYTES)
    groups.set(groupIndex, group)
  }
  const nodes = Buffer.alloc(groupCountOf(sizeBytes) * HASH_BYTES)
  for (const [groupIndex, group] of groups) nodeOf(group, 1).copy(nodes, groupIndex * HASH_BYTES)
  return rootOf(nodes, sizeBytes)
}

const testKeys = generateKeys()

/** Signed as a source would. */
export function manifestOf(disks: readonly ModelDisk[], header?: DeltaHeader): SignedManifest {
  const roots = disks.map((disk) => ({
    diskId: disk.diskId,
    sizeBytes: disk.sizeBytes,
    root: rootOfDisk(disk),
  }))
  const manifest = {
    vaultId: 'vault-1' as VaultId,
    vmId: testVm,
    epoch: header?.epoch ?? 1,
    seq: header?.seq ?? 1,
    capturedAtMs: header?.capturedAtMs ?? 0,
    consistency: header?.consistency ?? 'crash',
    disks: roots.map((root) => ({ ...root, changedBlocks: 0 })),
    sourceServerId: testServer,
    suspect: '',
  }
  return { encoded: signManifest(manifest, testKeys), roots }
}

/** The disk as a sparse raw file, for tools that are not ours. */
export function writeRaw({ sizeBytes, blocks }: ModelDisk, path: string): void {
  const fd = openSync(path, 'w')
  try {
    ftruncateSync(fd, sizeBytes)
    for (const [index, block] of blocks) {
      const offsetBytes = index * BLOCK_BYTES
      writeSync(fd, block, 0, Math.min(BLOCK_BYTES, sizeBytes - offsetBytes), offsetBytes)
    }
  } finally {
    closeSync(fd)
  }
}

export function send(writer: DeltaWriter, delta: ModelDelta): SealOutcome {
  const resume = new Map(writer.resume.map(({ diskId, nextBatch }) => [diskId, nextBatch]))
  for (const batch of delta.batches) {
    if (batch.batch >= (resume.get(batch.diskId) ?? 0)) writer.write(batch)
  }
  return writer.seal(delta.manifest)
}

export function replicate(store: ReplicaStore, delta: ModelDelta): SealOutcome {
  return send(store.begin(delta.header), delta)
}

export function prepareReplica(
  store: ReplicaStore,
  vm: ModelVm,
  retention: { retentionPoints: number; retentionIntervalSeconds: number },
): void {
  store.prepare({
    vmId: testVm,
    epoch: vm.epoch,
    sourceServerId: testServer,
    policy: replicationPolicy.parse(retention),
    disks: vm.disks.map(({ diskId, sizeBytes }) => ({ diskId, sizeBytes })),
  })
}
