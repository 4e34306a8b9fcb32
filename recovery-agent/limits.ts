import { assert } from '#shared/assert.ts'
import { BLOCK_BYTES } from '#shared/blocks/block.ts'
import { HASH_BYTES } from '#shared/blocks/hash-tree.ts'

const MiB = 1 << 20

/** Every queue, window, frame and retry of the recovery agent, each with its reason (I13). */
export const limits = {
  /** One Blocks message: 1 MiB raw, so that a stall or a repeat costs little and the header costs nothing. */
  batchMaxBlocks: 16,
  /**
   * Payload one VM may have unacknowledged at the target, and has to send again after a break. Little of it is in
   * memory there: what is written and not yet synced counts as well.
   */
  creditBytes: 48 * MiB,
  /** The target makes blocks durable after this much payload: each sync waits for the journal of the file system. */
  durableEveryPayloadBytes: 16 * MiB,
  /** The same in raw bytes, for what compresses well or is zero. */
  durableEveryRawBytes: 64 * MiB,
  /** And after this long, so that a break costs a slow link seconds, not a window. */
  durableEveryMs: 2_000,
  /** And after this long without a message, so that a slow source sees its progress. */
  durableIdleMs: 100,
  /** Leaves of one disk that is being received, 33 bytes for each block; what is more lies in a file until the seal. */
  leavesInMemoryBytes: 2 * MiB,
  /** Messages of one VM waiting at the target, 8 MiB at most; then the socket is read no further. */
  receiveQueueMessages: 8,
  disksPerVm: 64,
  /** VMs one source may replicate over one channel: as many as a large host runs. */
  vmsPerChannel: 1024,
  /** Nodes in one TreeNodes answer: 256 KiB. */
  treeQueryMaxNodes: 8192,
  /** Groups with data compared at a time while synchronizing: 64 MiB, so that the second reading comes from the page cache. */
  syncRangeGroups: 4,
  /** Answers about ranges asked for before they are needed, to hide the round trip. */
  syncRangesAhead: 4,
  /** Batches of a delta read while an earlier one is sent. */
  batchesAhead: 2,
  /** Groups read while an earlier one is sent: at most 16 MiB each. */
  syncGroupsAhead: 2,
  /**
   * And of all VMs that synchronize at a time: what was read for them and is not on the wire yet. Three full groups, so that
   * one VM alone is never held up.
   */
  syncReadAheadBytes: 48 * MiB,
  /** A seal may wait behind a prune of a large layer; a target that is silent longer than this is stuck. */
  replyTimeoutMs: 5 * 60_000,
  /** First and last pause between attempts to reach a peer or to send after a refusal. */
  retryFirstMs: 500,
  retryLastMs: 30_000,
  /**
   * A target that refuses our epoch is usually faster than the coordinator's fence. Without one for this long, nobody
   * here was told, and the VM may still run: that is an alarm.
   */
  fenceOrderMs: 60_000,
  /** A copy somebody waits for ends after this long without the target: several attempts to reach it. */
  copyTargetAwayMs: 3 * 60_000,
  /** How often the same trouble of one VM becomes an event. */
  eventRepeatMs: 15 * 60_000,
  /** Progress is reported to the coordinator at most this often. */
  progressReportMs: 1_000,
  /** The agent looks at its own free space this often. */
  agentReportMs: 30_000,
  /** A token bucket holds at most this much of its rate: bursts stay short. */
  throttleBurstMs: 250,
  /** A target that merges may stretch a cycle by so much; more would be an outage in disguise. */
  slowMaxMs: 15 * 60_000,
  /** Blocks of deltas sent as one: their index lies in memory, some 50 bytes each. */
  catchUpIndexBlocks: 1 << 20,
  /** Points below which older ones are still to come, of one VM: one for each outage, or layout of its disks, in the buffer. */
  backfillsPerVm: 64,
  /** While new copies keep the link busy, older points get turns of this length at least, so that they arrive too. */
  backfillTurnMs: 1_000,
  /** And this part of the time that the new ones took. */
  backfillShare: 1 / 3,
  /** An older point that does not come out right at the target is sent so often. */
  backfillAttempts: 3,
  /** A backlog of fewer copy cycles is no event. */
  catchUpSayCycles: 4,
  /** For the estimate of a synchronization before any transfer was measured: a link of 1 Gbit/s. */
  assumedLinkBytesPerSecond: 100_000_000,
  /** What a synchronization costs is told after this part of it was compared, or this long. */
  estimateAfterPart: 0.05,
  estimateAfterMs: 10_000,
  /** Damaged blocks a target asks its source for in one round; what is left is for the next one. 64 MiB. */
  repairRoundBlocks: 1024,
  /** A source that is in the middle of a copy cycle answers after it. */
  repairAnswerMs: 60_000,
  /** One slice of the rolling proof of a replica. */
  scrubSliceMs: 25,
  /** And no more than a quarter of the time of the thread that owns the replicas. */
  scrubPauseFactor: 3,
  /** While a delta is received nothing is read; it is looked again after this long. */
  scrubYieldMs: 500,
  /** At least so often something is read, however long a pass may take. */
  scrubPauseMaxMs: 60_000,
  /** With nothing to read yet, it is looked again after this long. */
  scrubIdleMs: 5_000,
  /** How far the proof came is reported this often. */
  scrubReportMs: 60_000,
  /** Whoever waits for a time of the week looks at the wall clock at least this often: it may be set anew. */
  timetableLookMs: 60_000,
} as const

/**
 * Of each worker. V8 would let what is young grow to 48 MiB before it collects; what passes here is small and short-lived,
 * for payload lies outside the heap.
 */
export const workerMemory = { maxYoungGenerationSizeMb: 8 } as const

assert(limits.durableEveryPayloadBytes * 2 <= limits.creditBytes, 'half a window makes the next grant')
assert(limits.batchMaxBlocks * BLOCK_BYTES <= limits.creditBytes / 4, 'a window holds several batches')
assert(limits.copyTargetAwayMs >= 4 * limits.retryLastMs, 'a copy survives a few attempts that fail')
assert(limits.treeQueryMaxNodes * HASH_BYTES <= MiB, 'an answer about the tree fits a frame')
