/**
 * Reports of agents to the coordinator. Each is the whole state of one thing, so a repeat or a late one is harmless and
 * nothing is lost while the coordinator is away (I4, I12): after a reconnect the agent reports everything once more.
 * Fields that are not known here, of a newer program, are left out and cost nothing: an agent may be upgraded first.
 */
import { z } from 'zod'
import { diskId, overlayId, vmId } from '../ids.ts'
import { vmDescription, vmObservation } from './vm.ts'

const epoch = z.int().positive()
const seq = z.int().nonnegative()
const errorReport = z.object({ code: z.string(), message: z.string(), atMs: z.number() }).nullable()

/** How much of a disk was read again and found as its hash tree says, and when the last whole pass ended. */
export const diskProof = z.object({
  diskId,
  sizeBytes: z.int(),
  /** Of the pass that goes on, 0 to 100. */
  percent: z.number(),
  /** null: not yet. */
  provedAtMs: z.number().nullable(),
  /** Blocks that are not what they should be and could not be healed yet. */
  badBlocks: z.int(),
})
export type DiskProof = z.infer<typeof diskProof>

/** A recovery point as its target holds it. Listed only when durable and attested (I3). */
export const pointReport = z.object({
  epoch,
  seq,
  capturedAtMs: z.number(),
  completedAtMs: z.number(),
  consistency: z.enum(['crash', 'application']),
  attested: z.boolean(),
  pinned: z.boolean(),
  /** Overlays standing on it: it cannot be pruned (I10). */
  overlays: z.array(overlayId),
  changedBytes: z.int(),
  storedBytes: z.int(),
  roots: z.array(z.object({ diskId, rootHex: z.string() })),
  /** A hint that what was written is not the VM's ordinary work; why. */
  suspect: z.string().nullable().default(null),
  /** Some of its blocks are not what was attested: it is not served until they are healed. */
  damaged: z.boolean().default(false),
  /** Why retention keeps it (shared/policy/retention.ts). */
  keptBecause: z.string().default('newest'),
})
export type PointReport = z.infer<typeof pointReport>

/** Target: everything about one replica. */
export const replicaReport = z.object({
  vmId,
  epoch,
  points: z.array(pointReport),
  /** Blocks still to be merged by pruning, in bytes. */
  mergeDebtBytes: z.int(),
  diskBytes: z.int(),
  /** Layers re-read at the target. */
  proof: z.array(diskProof).default([]),
  error: errorReport,
})
export type ReplicaReport = z.infer<typeof replicaReport>

export const cycleReport = z.object({
  seq,
  capturedAtMs: z.number(),
  scannedBytes: z.int(),
  changedBlocks: z.int(),
  changedBytes: z.int(),
  /** Payload put on the wire: after zero detection and compression. */
  sentBytes: z.int(),
  /** How long the VM was suspended for the capture. */
  freezeMs: z.number(),
  captureMs: z.number(),
  transferMs: z.number().nullable(),
})
export type CycleReport = z.infer<typeof cycleReport>

/** Source: everything about one VM it replicates. */
export const replicationReport = z.object({
  vmId,
  epoch,
  activity: z.enum(['waiting', 'synchronizing', 'replicating', 'paused', 'fenced', 'stopped']),
  cause: z.string().nullable(),
  sealedSeq: seq,
  ackedSeq: seq,
  newestCapturedAtMs: z.number().nullable(),
  newestAckedCapturedAtMs: z.number().nullable(),
  bufferedBytes: z.int(),
  /** Only while synchronizing. Bytes compared, and sent where they differ, of those that may hold data. */
  progress: z
    .object({
      doneBytes: z.int(),
      totalBytes: z.int(),
      /** From the speed so far; null: too early to say. */
      secondsLeft: z.number().nullable().default(null),
    })
    .nullable(),
  /** A synchronization that is due and has not begun to send; null: none. */
  resync: z
    .object({
      cause: z.string(),
      /** estimating: hashes are compared. start-time, window, approval: what it waits for. */
      waitsFor: z.enum(['estimating', 'start-time', 'window', 'approval']),
      startsAtMs: z.number().nullable(),
      estimate: z.object({ compareBytes: z.int(), sendBytes: z.int(), seconds: z.number() }).nullable(),
    })
    .nullable()
    .default(null),
  /** Blocks re-read at the source, those the tracker called unchanged included. */
  proof: z.array(diskProof).default([]),
  /** From churn and link speed; breachAtMs: when data will be (or, in the past, became) older than twice the copy frequency, null: not in sight. */
  forecast: z
    .object({
      churnBytesPerSecond: z.number(),
      linkBytesPerSecond: z.number().nullable(),
      breachAtMs: z.number().nullable(),
    })
    .nullable()
    .default(null),
  /** Copy cycles that wait in the buffer; bytes at most, since what would not be kept is sent as part of what is. null: none but the present one. */
  catchUp: z
    .object({ pendingCycles: z.int(), sendBytes: z.int(), secondsLeft: z.number().nullable() })
    .nullable()
    .default(null),
  /** Points older than the newest at the target that are still to be brought there. */
  owedPoints: z.int().default(0),
  /** The target asked for a slower pace until its merges have caught up: milliseconds added to each cycle. */
  slowedByMs: z.int().default(0),
  lastCycle: cycleReport.nullable(),
  totals: z.object({ changedBytes: z.int(), sentBytes: z.int(), cycles: z.int() }),
  peerConnected: z.boolean(),
  error: errorReport,
})
export type ReplicationReport = z.infer<typeof replicationReport>

/** A recovery agent about itself, on connect and when it changes. */
export const agentReport = z.object({
  host: z.string(),
  version: z.string(),
  listen: z.object({ host: z.string(), port: z.int() }),
  certificatePem: z.string(),
  replicaFreeBytes: z.int(),
  bufferBytes: z.int(),
  bufferMaxBytes: z.int(),
  nowMs: z.number(),
})
export type AgentReport = z.infer<typeof agentReport>

/** A provider's whole fabric. */
export const inventoryReport = z.object({
  vmmServer: z.string(),
  vmmVersion: z.string(),
  version: z.string(),
  clouds: z.array(z.object({ name: z.string(), hosts: z.array(z.string()) })),
  hosts: z.array(
    z.object({
      name: z.string(),
      memoryBytes: z.int(),
      cpuCount: z.int(),
      freeDiskBytes: z.int(),
      networks: z.array(z.string()),
      classifications: z.array(z.string()),
    }),
  ),
  networks: z.array(
    z.object({
      name: z.string(),
      logicalNetwork: z.string(),
      subnets: z.array(z.object({ name: z.string(), cidr: z.string() })),
    }),
  ),
  classifications: z.array(z.object({ name: z.string() })),
  /** Its hosts can bring the applications of a guest to rest for a point. */
  quiescesGuests: z.boolean().default(false),
  vms: z.array(vmDescription.extend({ cloud: z.string().nullable(), observation: vmObservation })),
  nowMs: z.number(),
})
export type InventoryReport = z.infer<typeof inventoryReport>

/** Something an operator should see, once. `eventId` makes a repeat harmless. */
export const eventReport = z.object({
  eventId: z.string(),
  atMs: z.number(),
  severity: z.enum(['info', 'warning', 'critical']),
  code: z.string(),
  message: z.string(),
  vmId: vmId.nullable(),
})
export type EventReport = z.infer<typeof eventReport>

export const reports = {
  agent: agentReport,
  inventory: inventoryReport,
  replica: replicaReport,
  replication: replicationReport,
  event: eventReport,
} as const
export type ReportKind = keyof typeof reports
export type ReportOf<Kind extends ReportKind> = z.infer<(typeof reports)[Kind]>
