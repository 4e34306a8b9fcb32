import type { ErrorDocument } from '#shared/errors/hotsite-error.ts'
import type { DiskId, FabricVmId, VmId } from '#shared/ids.ts'
import type { ResyncCause } from '#shared/messages/commands.ts'
import type { DiskProof } from '#shared/messages/reports.ts'
import type { AnomalyHistory } from '#shared/policy/anomaly.ts'
import type { OwedRange } from '../buffer/owed.ts'
import type { SeedExport, SeedExportRequest } from '../seed/export-seed.ts'
import type { CaptureFinding } from './capture-cycle.ts'
import type { CheckedDisk } from './read-disk.ts'
import type { ProvedRequest } from './read-proved.ts'

/** What is asked of one source VM; kept in buffer.db, so that it survives the coordinator (I12). */
export interface SourceVm {
  readonly vmId: VmId
  readonly fabricVmId: FabricVmId
  readonly epoch: number
}

export interface SourceVmState extends SourceVm {
  /** The newest point captured into the buffer. */
  readonly sealedSeq: number
  /** The newest point the target durably holds. Deltas up to it are released (I2). */
  readonly ackedSeq: number
  readonly ackedCapturedAtMs: number | null
  readonly bufferedBytes: number
  /** Disks of the acknowledged point, as `layoutOf` says them; null: not known. */
  readonly ackedLayout: string | null
  /** Older points the target is still to be brought, oldest first. */
  readonly owed: readonly OwedRange[]
  /** Not null: deltas mean nothing until a synchronization has run. */
  readonly needsSync: ResyncCause | null
  /** What was found damaged, when that is why a synchronization is due. */
  readonly found: ErrorDocument | null
  /** Of each disk: how far the walk over blocks the tracker called unchanged is, and when the last one was round. */
  readonly proof: readonly DiskProof[]
}

export interface CaptureStats {
  readonly scannedBytes: number
  readonly changedBlocks: number
  readonly changedBytes: number
  /** Payload after zero detection and compression. */
  readonly storedBytes: number
  readonly freezeMs: number
  readonly captureMs: number
  /** Mean size of sampled blocks after compression, 0 to 1 of their size, whether it is used or not; null: too few. */
  readonly storedShare: number | null
  /** Why the writes look unlike the VM's ordinary work (shared/policy/anomaly.ts); empty: they do not. */
  readonly suspect: string
}

/** A delta that rests in buffer.db, whole; or several in a row, read as one. */
export interface SealedDelta {
  readonly vmId: VmId
  readonly epoch: number
  readonly seq: number
  /** Its own seq, or that of the first of a run. */
  readonly firstSeq: number
  readonly baseSeq: number
  readonly capturedAtMs: number
  readonly consistency: 'crash' | 'application'
  readonly disks: readonly {
    readonly diskId: DiskId
    readonly sizeBytes: number
    readonly batchCount: number
  }[]
  /** Encoded `Signed` of its `PointManifest`. */
  readonly manifest: Uint8Array
  readonly stats: CaptureStats
}

/** Ready for the wire: `payload` is the concatenation of the stored blocks (see Blocks in hotsite.proto). */
export interface StoredBatch {
  readonly batch: number
  readonly blockIndexes: readonly number[]
  readonly storedBytes: readonly number[]
  readonly payload: Buffer
  /** The memory of the payload may be used again. Whoever forgets the batch without calling it does no harm. */
  readonly release?: (() => void) | undefined
}

export interface BatchRequest {
  readonly vmId: VmId
  readonly seq: number
  readonly firstSeq?: number
  readonly diskId: DiskId
  readonly batch: number
  /** Of an owed delta: the point that came first. Blocks that are in it as they are here are only named, unless `whole`. */
  readonly owed?: { readonly topSeq: number; readonly whole: boolean }
}

export interface CaptureOptions {
  readonly compress: boolean
  /** Blocks a tracker called unchanged are re-read, all of them within this time; 0 or left out: none. */
  readonly proofHours?: number
  /** An application-consistent point, if guest and driver can. */
  readonly quiesce?: boolean
  /** What the VM wrote so far, to compare this cycle with; left out: nothing is called suspect. */
  readonly writes?: {
    readonly history: AnomalyHistory
    /** Since the cycle before. */
    readonly elapsedMs: number
  }
}

export type CaptureOutcome =
  | {
      readonly kind: 'sealed'
      readonly delta: SealedDelta
      readonly findings: readonly CaptureFinding[]
      readonly checked: readonly CheckedDisk[]
      /** Why the point is crash-consistent although `quiesce` was asked for, where the driver says so. */
      readonly notQuiesced?: string | undefined
    }
  /** Nothing was captured and nothing is lost: the tracker (the stored leaves) goes on collecting (I13). */
  | { readonly kind: 'buffer-full'; readonly bufferedBytes: number; readonly maxBytes: number }
  | { readonly kind: 'needs-sync'; readonly cause: ResyncCause }

export type VerifyOutcome =
  | { readonly kind: 'verified'; readonly seq: number; readonly disks: readonly CheckedDisk[] }
  | Exclude<CaptureOutcome, { kind: 'sealed' }>

/**
 * One synchronization: initial replication, resynchronization, reverse replication. Reads a snapshot that is held
 * open, compares with the target's tree, and yields only blocks that differ. Interrupted, it starts over from a new
 * snapshot, and what the target already has is found equal (I7).
 */
export interface SyncSession extends AsyncDisposable {
  readonly seq: number
  readonly baseSeq: number
  readonly capturedAtMs: number
  readonly consistency: 'crash' | 'application'
  readonly freezeMs: number
  readonly disks: readonly {
    readonly diskId: DiskId
    readonly sizeBytes: number
    readonly groupCount: number
    /** Bytes of each group that may hold data: what comparing costs. */
    readonly groupDataBytes: Uint32Array
  }[]
  /** Reads and hashes groups [first, first+count) of the snapshot, compares with the target's level-1 nodes (32 bytes each), answers the groups that differ. One the target has as all zero is answered unread when it may hold data: differingBlocks reads it. */
  differingGroups(request: { diskId: DiskId; first: number; targetNodes: Buffer }): Promise<readonly number[]>
  /** Blocks of one group whose leaf differs from the target's (256 × 32 bytes), as batches of up to 1 MiB raw, numbered from `firstBatch`. */
  differingBlocks(request: {
    diskId: DiskId
    group: number
    targetLeaves: Buffer
    firstBatch: number
    compress: boolean
  }): Promise<readonly StoredBatch[]>
  /** How many blocks of a group that was compared differ from the target's leaves and are not zero. Reads nothing. */
  countDiffering(request: { diskId: DiskId; group: number; targetLeaves: Buffer }): Promise<number>
  /** After every group was compared: the signed description of the point. */
  manifest(): Promise<{ readonly manifest: Uint8Array; readonly stats: CaptureStats }>
  /** The target acknowledged the point: the trees, seq and acked cursor become durable in one transaction. */
  commit(): Promise<void>
}

/**
 * Everything at the source that touches disks and buffer.db, behind one worker (DESIGN §5): capture, hash trees,
 * the buffer and its cursors. One owner, calls of one VM are serialized.
 */
export interface CaptureEngine extends AsyncDisposable {
  add(vm: SourceVm, cause: ResyncCause): Promise<void>
  /** Raises the epoch of a known VM or marks it for a synchronization. */
  requireSync(vmId: VmId, cause: ResyncCause): Promise<void>
  forget(vmId: VmId): Promise<void>
  states(): Promise<readonly SourceVmState[]>
  state(vmId: VmId): Promise<SourceVmState | undefined>
  /** One copy cycle: snapshot, scan or tracked extents, hash, compress, and a seal in one transaction with the trees. */
  capture(vmId: VmId, options: CaptureOptions): Promise<CaptureOutcome>
  /** A copy cycle that compares so many percent of the blocks of every disk, whatever a tracker says of them; 100: all. What differs is in its delta. */
  verify(vmId: VmId, options: { percent: number }): Promise<VerifyOutcome>
  /** The oldest sealed delta above `afterSeq`; with those up to `throughSeq`, which must be of the same disks, as one. */
  nextDelta(vmId: VmId, afterSeq: number, throughSeq?: number): Promise<SealedDelta | undefined>
  /** Sealed and not acknowledged, oldest first. */
  pendingDeltas(vmId: VmId): Promise<readonly SealedDelta[]>
  /** `firstSeq` as the delta says; left out: of that delta alone. */
  readBatch(request: BatchRequest): Promise<StoredBatch>
  /** The point of `seq` is durable at the target: advances the cursor, frees the buffer, releases the base (I2). Repeatable. */
  acknowledge(vmId: VmId, seq: number): Promise<void>
  /**
   * Instead of what was owed below that top: recorded before the union is sent, and again whenever a point is there, or
   * given up. What nothing is owed of any more is freed. Repeatable; nothing while a synchronization is due.
   */
  owe(vmId: VmId, range: OwedRange): Promise<void>
  /** The deltas above `baseSeq` up to `seq` as one, of those that are owed; undefined: they are not, or are damaged. */
  owedDelta(vmId: VmId, place: { baseSeq: number; seq: number }): Promise<SealedDelta | undefined>
  /** newestSeq: the target's, so that seq goes on above it. */
  openSync(vmId: VmId, options: { newestSeq: number }): Promise<SyncSession>
  /** Writes the disks of a VM, protected or not, as a seed to carry (recovery-agent/seed). Captures go on meanwhile. */
  exportSeed(request: SeedExportRequest): Promise<SeedExport>
  /** Of these blocks those that disk or buffer still hold with exactly these leaves, as a batch (numbered 0). */
  readProved(vmId: VmId, request: ProvedRequest): Promise<StoredBatch>
  usage(): Promise<{ readonly bufferedBytes: number; readonly maxBytes: number }>
}
