/**
 * Synchronization of one VM from a held snapshot (I7). Each disk gets a second tree in the database, built group by
 * group from the snapshot; the commit makes the second trees the VM's trees by changing their names in `disks`, in
 * one transaction with the cursors. Until then nothing that was there before has changed, and a second tree that is
 * never committed is garbage.
 */
import { BLOCK_BYTES, blockCountOf } from '#shared/blocks/block.ts'
import {
  GROUP_BYTES,
  GROUP_CHILDREN,
  groupCountOf,
  HASH_BYTES,
  nodeOf,
  rootOf,
  ZERO_GROUP,
  ZERO_HASH,
} from '#shared/blocks/hash-tree.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { DiskId } from '#shared/ids.ts'
import { layoutOf } from '../buffer/owed.ts'
import type { VmRow } from '../buffer/vm-rows.ts'
import type { Snapshot } from '../hypervisor/port.ts'
import { newTreeName } from './disk-trees.ts'
import type { EngineDeps } from './engine-deps.ts'
import { groupDataBytes } from './group-data.ts'
import { GroupReader } from './group-reader.ts'
import { GroupSet } from './group-set.ts'
import { Pace } from './pace.ts'
import type { CaptureStats, StoredBatch, SyncSession } from './port.ts'

/** Groups of 8 KiB, of all disks together, that wait to be stored. */
const STAGED_GROUPS = 512

interface SyncDisk {
  readonly diskId: DiskId
  readonly sizeBytes: number
  readonly groupCount: number
  readonly groupDataBytes: Uint32Array
  readonly tree: string
  readonly reader: GroupReader
  readonly hashedGroups: GroupSet
  /** Leaves that are not in the second tree yet. */
  readonly staged: Map<number, Buffer>
  /** By group, so that a repeated request counts once. */
  readonly changedBlocks: Map<number, number>
  readonly storedBytes: Map<number, number>
}

interface OpenRequest {
  readonly vm: VmRow
  readonly newestSeq: number
  readonly onClosed: () => Promise<void>
}

type SyncPhase = 'comparing' | 'described' | 'committed' | 'closed'

export class SnapshotSync implements SyncSession {
  readonly seq: number
  readonly baseSeq: number
  readonly disks: SyncSession['disks']
  readonly #deps: EngineDeps
  readonly #vm: VmRow
  readonly #snapshot: Snapshot
  readonly #startedMs: number
  readonly #syncDisks: ReadonlyMap<DiskId, SyncDisk>
  readonly #onClosed: () => Promise<void>
  readonly #pace: Pace
  #phase: SyncPhase = 'comparing'
  #snapshotOpen = true
  #description: { manifest: Uint8Array; stats: CaptureStats } | undefined

  static async open(deps: EngineDeps, request: OpenRequest): Promise<SnapshotSync> {
    const startedMs = deps.clock.monotonicMs()
    const { fabricVmId } = request.vm
    const snapshot = await deps.hypervisor.openSnapshot({ fabricVmId, hold: 'long', seq: seqOf(request) })
    return new SnapshotSync(deps, request, snapshot, startedMs)
  }

  private constructor(deps: EngineDeps, request: OpenRequest, snapshot: Snapshot, startedMs: number) {
    const { vm, newestSeq, onClosed } = request
    this.#deps = deps
    this.#vm = vm
    this.#snapshot = snapshot
    this.#startedMs = startedMs
    this.#onClosed = onClosed
    this.#pace = new Pace(deps.clock, deps.limits.paceMs)
    this.seq = seqOf(request)
    this.baseSeq = newestSeq
    const disks = snapshot.disks.map((disk) => ({
      diskId: disk.diskId,
      sizeBytes: disk.sizeBytes,
      groupCount: groupCountOf(disk.sizeBytes),
      groupDataBytes: groupDataBytes(disk),
      tree: newTreeName(deps.rng, vm.vmId, disk.diskId),
      reader: new GroupReader(disk, (sizeBytes) => deps.payloadMemory?.(sizeBytes)),
      hashedGroups: new GroupSet(groupCountOf(disk.sizeBytes)),
      staged: new Map<number, Buffer>(),
      changedBlocks: new Map<number, number>(),
      storedBytes: new Map<number, number>(),
    }))
    this.#syncDisks = new Map(disks.map((disk) => [disk.diskId, disk]))
    this.disks = disks.map(({ diskId, sizeBytes, groupCount, groupDataBytes }) => {
      return { diskId, sizeBytes, groupCount, groupDataBytes }
    })
  }

  get capturedAtMs(): number {
    return Math.round(this.#snapshot.capturedAtMs)
  }

  get consistency(): 'crash' | 'application' {
    return this.#snapshot.consistency
  }

  get freezeMs(): number {
    return this.#snapshot.freezeMs()
  }

  /** Trees that garbage collection must spare. */
  get trees(): readonly string[] {
    return [...this.#syncDisks.values()].map((disk) => disk.tree)
  }

  async differingGroups(request: {
    diskId: DiskId
    first: number
    targetNodes: Buffer
  }): Promise<readonly number[]> {
    const disk = this.#comparing(request.diskId)
    const { first, targetNodes } = request
    const end = Math.min(disk.groupCount, first + targetNodes.length / HASH_BYTES)
    const differing: number[] = []
    for (let group = first; group < end; group++) {
      const offset = (group - first) * HASH_BYTES
      const targetNode = targetNodes.subarray(offset, offset + HASH_BYTES)
      if (targetNode.equals(ZERO_HASH) && !disk.hashedGroups.has(group) && disk.reader.hasData(group)) {
        // Hashed and stored in one reading, by differingBlocks.
        differing.push(group)
        continue
      }
      const leaves = disk.reader.hasData(group) ? disk.reader.leaves(group) : ZERO_GROUP
      this.#stage(disk, group, leaves)
      if (!nodeOf(leaves, 1).equals(targetNode)) differing.push(group)
      await this.#pace.pauseIfDue()
      this.#comparing(request.diskId)
    }
    return differing
  }

  async differingBlocks(request: {
    diskId: DiskId
    group: number
    targetLeaves: Buffer
    firstBatch: number
    compress: boolean
  }): Promise<readonly StoredBatch[]> {
    const disk = this.#comparing(request.diskId)
    const { group, targetLeaves } = request
    ensureLeaves(targetLeaves)
    if (!disk.hashedGroups.has(group)) {
      if (!targetLeaves.equals(ZERO_GROUP)) throw this.#incomplete(`group ${group} of disk ${disk.diskId}`)
      const { leaves, batches } = disk.reader.fresh(group, request)
      this.#stage(disk, group, leaves)
      return this.#counted(disk, group, batches)
    }
    const blocks = this.#differing(disk, group, targetLeaves)
    return this.#counted(disk, group, disk.reader.batches(blocks, request))
  }

  async countDiffering(request: { diskId: DiskId; group: number; targetLeaves: Buffer }): Promise<number> {
    const disk = this.#comparing(request.diskId)
    const { group, targetLeaves } = request
    ensureLeaves(targetLeaves)
    if (!disk.hashedGroups.has(group)) throw this.#incomplete(`group ${group} of disk ${disk.diskId}`)
    return this.#differing(disk, group, targetLeaves).filter(({ isZero }) => !isZero).length
  }

  #differing(
    disk: SyncDisk,
    group: number,
    targetLeaves: Buffer,
  ): { readonly blockIndex: number; readonly isZero: boolean }[] {
    const leaves = disk.staged.get(group) ?? this.#deps.buffer.leaves.group(disk.tree, group)
    const end = Math.min(GROUP_CHILDREN, Math.ceil(disk.sizeBytes / BLOCK_BYTES) - group * GROUP_CHILDREN)
    const blocks: { blockIndex: number; isZero: boolean }[] = []
    for (let i = 0; i < end; i++) {
      const leaf = leaves.subarray(i * HASH_BYTES, (i + 1) * HASH_BYTES)
      if (leaf.equals(targetLeaves.subarray(i * HASH_BYTES, (i + 1) * HASH_BYTES))) continue
      blocks.push({ blockIndex: group * GROUP_CHILDREN + i, isZero: leaf.equals(ZERO_HASH) })
    }
    return blocks
  }

  #counted(disk: SyncDisk, group: number, batches: readonly StoredBatch[]): readonly StoredBatch[] {
    const total = (count: (batch: StoredBatch) => number) =>
      batches.reduce((sum, batch) => sum + count(batch), 0)
    disk.changedBlocks.set(
      group,
      total(({ blockIndexes }) => blockIndexes.length),
    )
    disk.storedBytes.set(
      group,
      total(({ payload }) => payload.length),
    )
    return batches
  }

  async manifest(): Promise<{ manifest: Uint8Array; stats: CaptureStats }> {
    if (this.#description) return this.#description
    for (const disk of this.#syncDisks.values()) {
      this.#comparing(disk.diskId)
      if (disk.hashedGroups.size !== disk.groupCount)
        throw this.#incomplete(`${disk.groupCount - disk.hashedGroups.size} groups of disk ${disk.diskId}`)
      this.#flush(disk)
    }
    if (!this.#closeSnapshot())
      throw new HotsiteError(
        'snapshot-torn',
        `the snapshot of VM ${this.#vm.vmId} did not hold until it was read`,
      )
    this.#description = { manifest: this.#signedManifest(), stats: this.#stats() }
    this.#phase = 'described'
    return this.#description
  }

  async commit(): Promise<void> {
    if (this.#phase === 'committed') return
    if (this.#phase === 'closed') throw this.#ended()
    if (this.#phase !== 'described') throw this.#incomplete('the manifest')
    const { buffer, crashPoint, hypervisor, log } = this.#deps
    const { vmId, epoch, fabricVmId } = this.#vm
    crashPoint('sync.before-commit')
    buffer.atomically(() => {
      const now = buffer.vms.get(vmId)
      if (now?.epoch !== epoch)
        throw new HotsiteError(
          'synchronization-superseded',
          `VM ${vmId} ${now ? `is at epoch ${now.epoch} now, not ${epoch}` : 'was forgotten'}`,
        )
      // Every block was read, and the target had the same: a proof of the whole disk.
      const provedAtMs = this.capturedAtMs
      const proved = ({ sizeBytes }: SyncDisk) => ({ nextBlock: blockCountOf(sizeBytes), provedAtMs })
      buffer.vms.replaceDisks(
        vmId,
        [...this.#syncDisks.values()].map((disk) => ({ ...disk, walk: proved(disk) })),
      )
      crashPoint('sync.in-commit')
      const { seq } = this
      buffer.vms.put({
        ...now,
        sealedSeq: seq,
        ackedSeq: seq,
        ackedCapturedAtMs: this.capturedAtMs,
        ackedLayout: layoutOf(this.disks),
        owed: [],
        needsSync: null,
      })
    })
    this.#phase = 'committed'
    crashPoint('sync.after-commit')
    log.info('synchronization committed', { vmId, epoch, seq: this.seq })
    await hypervisor.release(fabricVmId, this.seq)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#phase === 'closed') return
    this.#phase = 'closed'
    this.#closeSnapshot()
    await this.#onClosed()
  }

  #stage(disk: SyncDisk, group: number, leaves: Buffer): void {
    disk.hashedGroups.add(group)
    // The second tree is new: what is not stored in it is zero.
    if (leaves.equals(ZERO_GROUP)) return
    disk.staged.set(group, leaves)
    const disks = [...this.#syncDisks.values()].filter(({ staged }) => staged.size > 0)
    if (disks.reduce((sum, { staged }) => sum + staged.size, 0) < STAGED_GROUPS) return
    for (const staged of disks) this.#flush(staged)
  }

  #flush(disk: SyncDisk): void {
    const { buffer, crashPoint } = this.#deps
    buffer.atomically(() => {
      buffer.leaves.putGroups(disk.tree, disk.staged)
    })
    disk.staged.clear()
    crashPoint('sync.tree-staged')
  }

  #signedManifest(): Uint8Array {
    const { buffer, serverId, sign, vaultId } = this.#deps
    const { vmId, epoch } = this.#vm
    const { seq, capturedAtMs, consistency } = this
    const disks = [...this.#syncDisks.values()].map(
      ({ diskId, sizeBytes, groupCount, tree, changedBlocks }) => ({
        diskId,
        sizeBytes,
        root: rootOf(buffer.leaves.groupHashes(tree, groupCount), sizeBytes),
        changedBlocks: sum(changedBlocks),
      }),
    )
    return sign({
      vaultId,
      vmId,
      epoch,
      seq,
      capturedAtMs,
      consistency,
      disks,
      sourceServerId: serverId,
      suspect: '',
    })
  }

  #stats(): CaptureStats {
    const disks = [...this.#syncDisks.values()]
    const changedBlocks = disks.reduce((total, disk) => total + sum(disk.changedBlocks), 0)
    return {
      scannedBytes: disks.reduce((total, disk) => total + disk.reader.readBytes, 0),
      changedBlocks,
      changedBytes: changedBlocks * BLOCK_BYTES,
      storedBytes: disks.reduce((total, disk) => total + sum(disk.storedBytes), 0),
      freezeMs: this.freezeMs,
      captureMs: this.#deps.clock.monotonicMs() - this.#startedMs,
      storedShare: null,
      suspect: '',
    }
  }

  #closeSnapshot(): boolean {
    if (!this.#snapshotOpen) return false
    this.#snapshotOpen = false
    return this.#snapshot.close().intact
  }

  #comparing(diskId: DiskId): SyncDisk {
    if (this.#phase !== 'comparing') throw this.#ended()
    const disk = this.#syncDisks.get(diskId)
    if (disk) return disk
    throw new HotsiteError('disk-unknown', `VM ${this.#vm.vmId} has no disk ${diskId} in this snapshot`)
  }

  #ended(): HotsiteError {
    return new HotsiteError(
      'synchronization-superseded',
      `the synchronization of VM ${this.#vm.vmId} has ended`,
    )
  }

  #incomplete(missing: string): HotsiteError {
    return new HotsiteError('synchronization-incomplete', `not compared or described yet: ${missing}`)
  }
}

function ensureLeaves(leaves: Buffer): void {
  if (leaves.length === GROUP_BYTES) return
  throw new HotsiteError('request-invalid', `the leaves of a group are ${leaves.length} bytes, not 8192`)
}

/** Above every seq that either side knows. */
function seqOf({ vm, newestSeq }: OpenRequest): number {
  return Math.max(newestSeq, vm.sealedSeq, vm.ackedSeq) + 1
}

function sum(counts: ReadonlyMap<number, number>): number {
  let total = 0
  for (const count of counts.values()) total += count
  return total
}
