import type { DiskId, OverlayId, ServerId, VmId } from '#shared/ids.ts'
import type { OverlayDisk, PointRef } from '#shared/messages/commands.ts'
import type { ReplicationPolicy } from '#shared/messages/policy.ts'
import type { DiskProof, PointReport } from '#shared/messages/reports.ts'
import type { StoppedDisk } from '../hypervisor/port.ts'

export interface ReplicaDisk {
  readonly diskId: DiskId
  readonly sizeBytes: number
}

export interface ReplicaState {
  readonly vmId: VmId
  /** The highest epoch this replica ever saw; writers with an older one are refused (I5). */
  readonly epoch: number
  /** 0: no point yet. */
  readonly newestSeq: number
  readonly sourceServerId: ServerId
  readonly policy: ReplicationPolicy
}

export interface DeltaHeader {
  readonly vmId: VmId
  readonly epoch: number
  readonly seq: number
  readonly baseSeq: number
  /**
   * delta: resumes by batch number. sync: resumes by hash comparison; blocks may be written again. union: a delta below
   * which older points follow. backfill: one of those, which goes into the chain below the union.
   */
  readonly kind: 'delta' | 'sync' | 'union' | 'backfill'
  readonly capturedAtMs: number
  readonly consistency: 'crash' | 'application'
  readonly disks: readonly ReplicaDisk[]
}

export interface BlockBatch {
  readonly diskId: DiskId
  readonly batch: number
  readonly blockIndexes: readonly number[]
  /** Raw 64 KiB each, in order; null stands for a zero block, 'held' for one of the union above. */
  readonly blocks: readonly (Buffer | null | 'held')[]
}

export interface DiskProgress {
  readonly diskId: DiskId
  /** Every batch below it is on stable storage. */
  readonly nextBatch: number
}

/** The source's signed description of a point, as it came. */
export interface SignedManifest {
  /** Encoded `Signed` of a `PointManifest`; kept beside the point, so that the proof can be repeated. */
  readonly encoded: Uint8Array
  readonly roots: readonly {
    readonly diskId: DiskId
    readonly sizeBytes: number
    readonly root: Uint8Array
  }[]
  /** Empty or absent, or why the point looks unlike the VM's ordinary work. */
  readonly suspect?: string
}

export type SealOutcome =
  | { readonly kind: 'sealed' }
  /** These disks' own leaves give another root than the one signed: no point came into being (I3). */
  | { readonly kind: 'diverged'; readonly diskIds: readonly DiskId[] }

/** Receives one delta. Leaves are computed from the bytes written, never taken from the sender. */
export interface DeltaWriter {
  /** What is durable already, from an earlier attempt at the same (epoch, seq). */
  readonly resume: readonly DiskProgress[]
  /** A batch below `resume` is ignored (I4). */
  write(batch: BlockBatch): void
  /** Everything written so far is on stable storage when it returns. */
  sync(): readonly DiskProgress[]
  /** Layer files durable, roots compared, then the point in one transaction. The writer is finished after it. */
  seal(manifest: SignedManifest): SealOutcome
  /** Lets go of file handles; what is durable stays for the next attempt. */
  close(): void
}

export interface CreatedOverlay {
  readonly point: PointRef
  readonly capturedAtMs: number
  readonly disks: readonly OverlayDisk[]
}

export interface VerifyRequest {
  readonly vmId: VmId
  /** Of the data blocks, 0 to 100; tables are always checked whole. */
  readonly percent: number
  /** Chooses the sample. */
  readonly seed: number
}

export interface VerifyOutcome {
  readonly disks: readonly {
    readonly diskId: DiskId
    readonly checkedBlocks: number
    readonly totalBlocks: number
    readonly badBlocks: number
    /** Damaged one by one, and right again. */
    readonly healedBlocks: number
    /** Damaged as a whole, and right again. */
    readonly healedLayers: number
  }[]
  readonly damagedPoints: readonly PointRef[]
}

export interface ScrubSlice {
  readonly checkedBlocks: number
  /** Of all layers of the VM. */
  readonly totalBlocks: number
  readonly passEnded: boolean
  readonly foundDamage: boolean
}

export interface RepairWanted {
  readonly diskId: DiskId
  readonly blockIndexes: readonly number[]
  /** 32 bytes for each. */
  readonly leaves: Buffer
}

/** What takes long is done in steps, between which whoever drives them may do something else. */
export interface StoreSteps {
  adopt(...args: Parameters<ReplicaStore['adopt']>): Generator<void, ReplicaState>
  createOverlay(...args: Parameters<ReplicaStore['createOverlay']>): Generator<void, CreatedOverlay>
  verify(request: VerifyRequest): Generator<void, VerifyOutcome>
  heal(vmId: VmId): Generator<void, number>
}

/**
 * The replicas of one target (DESIGN §5, §8). Synchronous, because it runs in a worker of its own: one owner, no locks.
 * Errors are HotsiteErrors: `epoch-stale`, `point-unknown`, `replica-unknown`, `point-in-use`, `disk-full`, …
 */
export interface ReplicaStore {
  /** Removes what an earlier life left half done and finishes interrupted prunes. Call once, first. */
  recover(): void
  list(): readonly ReplicaState[]
  get(vmId: VmId): ReplicaState | undefined
  /** Creates the replica or updates its policy, source and disks; raises the epoch, never lowers it (`epoch-stale`). */
  prepare(request: {
    vmId: VmId
    epoch: number
    sourceServerId: ServerId
    policy: ReplicationPolicy
    disks: readonly ReplicaDisk[]
  }): ReplicaState
  /** Makes the base of a new replica from existing raw disk files: point-less, but its tree is known, so a sync sends only differences. */
  adopt(request: {
    vmId: VmId
    epoch: number
    sourceServerId: ServerId
    policy: ReplicationPolicy
    disks: readonly StoppedDisk[]
  }): ReplicaState
  raiseEpoch(vmId: VmId, epoch: number): ReplicaState
  setPolicy(vmId: VmId, policy: ReplicationPolicy): void
  begin(header: DeltaHeader): DeltaWriter
  /**
   * The source still brings points below these; nothing more is expected below any other. Answers whether points can be put
   * below newer ones now: not while it is not known what the layers should hold, as after replica.db was lost.
   */
  keepBackfills(vmId: VmId, topSeqs: readonly number[]): boolean
  /** Drops an unsealed delta (the source starts over). */
  discardPartial(vmId: VmId): void
  /** Tree nodes of the newest state, an unsealed sync delta of (epoch, seq) included. level 0: leaves, 1: group hashes. */
  treeNodes(request: { vmId: VmId; diskId: DiskId; level: 0 | 1; first: number; count: number }): Buffer
  points(vmId: VmId): readonly PointReport[]
  /** Unpinning a suspect point, or the one held before it, also takes the hint back. */
  pin(vmId: VmId, point: PointRef, pinned: boolean): void
  /**
   * Applies retention: the decision is pure (shared/policy/retention.ts), one slice of a merge per call, some 25 ms.
   * True: there is more to do.
   */
  prune(vmId: VmId, nowMs: number): boolean
  /** Repeatable by overlayId. qcow2: an empty overlay on the point's layer. raw: the point written out as a sparse raw file. */
  createOverlay(request: {
    vmId: VmId
    overlayId: OverlayId
    point: PointRef | null
    purpose: 'test' | 'failover'
    format: 'raw' | 'qcow2'
    /** false: only what is known to be damaged is refused. A raw overlay is proved while it is written in any case. */
    verify?: boolean
  }): CreatedOverlay
  removeOverlay(vmId: VmId, overlayId: OverlayId): void
  /**
   * Disks of failovers that were committed here before this replica received its first point: the VM has moved on, and
   * they may be removed once no VM is defined with them.
   */
  formerOverlays(
    vmId: VmId,
  ): readonly { readonly overlayId: OverlayId; readonly disks: readonly OverlayDisk[] }[]
  /** The failover is final: all points go, except what the overlay itself needs; the overlay's files are left alone. */
  commit(vmId: VmId, overlayId: OverlayId): void
  remove(vmId: VmId): void
  /** Layer file of one disk at a point, for verification by stock tools. */
  layerPath(vmId: VmId, point: PointRef, diskId: DiskId): string
  usage(vmId: VmId): { readonly diskBytes: number; readonly mergeDebtBytes: number }
  /** How many milliseconds the source should add to each cycle until merges have caught up; 0: none. */
  slowDownMs(vmId: VmId): number
  /** Reads stored blocks again, heals what can be healed here, and says what is left. */
  verify(request: VerifyRequest): VerifyOutcome
  /** Names put back, layers written anew from their own clusters. Answers how many layers are right again. */
  heal(vmId: VmId): number
  /** The rolling proof goes on for about so long. */
  scrub(vmId: VmId, budgetMs: number): ScrubSlice
  proof(vmId: VmId): readonly DiskProof[]
  /** Damaged blocks the source may be asked for, of one disk, in a fixed order; `skip` were asked for in vain. */
  repairWanted(vmId: VmId, options: { skip: number; maxBlocks: number }): RepairWanted | null
  /** Blocks of the source, raw; each is taken only where it is exactly what was lost. Answers how many were. */
  repair(request: {
    vmId: VmId
    diskId: DiskId
    blockIndexes: readonly number[]
    blocks: readonly Uint8Array[]
  }): number
}
