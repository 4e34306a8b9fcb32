/**
 * Commands of the coordinator to its agents, and their results. Each is a row of the outbox, delivered at least once;
 * the receiver remembers results by command id and answers a repeat from memory (I4).
 */
import { z } from 'zod'
import { diskId, fabricVmId, overlayId, serverId, vmId } from '../ids.ts'
import { replicationPolicy } from './policy.ts'
import { diskSpec, nicSpec, vmDescription, vmObservation } from './vm.ts'

const epoch = z.int().positive()
const seq = z.int().nonnegative()
const base64 = z.base64()

const pointRef = z.strictObject({ epoch, seq })
export type PointRef = z.infer<typeof pointRef>

/** How to reach a peer agent and how to know it (its TLS certificate is pinned). */
const peerAddress = z.strictObject({
  serverId,
  host: z.string(),
  port: z.int(),
  certificatePem: z.string(),
})
export type PeerAddress = z.infer<typeof peerAddress>

export const resyncCause = z.enum([
  'initial',
  'requested',
  'tracker-lost',
  'diverged',
  'reversed',
  'target-replaced',
  'buffer-lost',
  // One delta alone is larger than the whole buffer.
  'buffer-overflow',
  // Rows of buffer.db, or the whole file, are not what was written.
  'buffer-damaged',
  // Stored hashes contradict each other.
  'tree-damaged',
  // Blocks of the newest point at the target are not what was attested, and could not be healed singly.
  'replica-damaged',
])
export type ResyncCause = z.infer<typeof resyncCause>

const overlayDisk = z.strictObject({
  diskId,
  path: z.string(),
  format: z.enum(['raw', 'qcow2']),
  sizeBytes: z.int(),
})
export type OverlayDisk = z.infer<typeof overlayDisk>

/** A text console takes 10 KiB, a desktop some hundred; one message has to hold it. */
export const MAX_SCREENSHOT_BASE64 = 700_000

const empty = z.strictObject({})

/** Servers removed whose membership would still hold: 36 bytes each, well below one message. */
export const MAX_REVOKED_SERVERS = 100_000

/** Commands to every registered server, whatever its kind. */
const serverCommands = {
  /** Whom to refuse from now on, coordinator or not (I12): the whole list, in place of the one before. */
  'trust.update': {
    request: z.strictObject({
      revokedServerIds: z.array(serverId).max(MAX_REVOKED_SERVERS),
      /** Of the vault key that signed the memberships of those servers. */
      generation: z.int().positive(),
    }),
    result: empty,
  },
} as const

/** Commands to a recovery agent. `request` and `result` are the schemas of the two documents. */
export const agentCommands = {
  ...serverCommands,
  /** Target: be ready to receive this VM at this epoch. Repeatable; an existing replica is kept. */
  'replica.prepare': {
    request: z.strictObject({
      vmId,
      epoch,
      disks: z.array(diskSpec),
      sourceServerId: serverId,
      policy: replicationPolicy,
    }),
    result: empty,
  },
  /** Old source becomes target: its own disks become the base of the replica (reverse replication). */
  'replica.adopt': {
    request: z.strictObject({
      vmId,
      epoch,
      fabricVmId,
      sourceServerId: serverId,
      policy: replicationPolicy,
    }),
    result: empty,
  },
  /** Target: raise the epoch. From the return on, writes of an older one are refused (I5). */
  'replica.fence': {
    request: z.strictObject({ vmId, epoch }),
    result: z.strictObject({ newest: pointRef.nullable() }),
  },
  /** Target: writable disks on a point; the point is leased until the overlay is removed (I10). point null: the newest. */
  'overlay.create': {
    request: z.strictObject({
      vmId,
      overlayId,
      point: pointRef.nullable(),
      purpose: z.enum(['test', 'failover']),
      /** Every block the point consists of is read and proved first; false: in a hurry, and said so in the job. */
      verify: z.boolean().default(true),
    }),
    result: z.strictObject({ point: pointRef, capturedAtMs: z.number(), disks: z.array(overlayDisk) }),
  },
  'overlay.remove': { request: z.strictObject({ vmId, overlayId }), result: empty },
  /** Target after commit: the overlay is the VM now; points other than the one it stands on may go. */
  'replica.commit': { request: z.strictObject({ vmId, overlayId }), result: empty },
  /** Target: re-reads this part of all stored blocks now, heals what it can. Returns when it is through. */
  'replica.verify': {
    request: z.strictObject({ vmId, percent: z.number().gt(0).max(100) }),
    result: z.strictObject({
      disks: z.array(
        z.strictObject({
          diskId,
          checkedBlocks: z.int(),
          totalBlocks: z.int(),
          badBlocks: z.int(),
          /** Not what was attested when they were read, and right again; those whose layer could not be read do not count. */
          healedBlocks: z.int(),
          /** Files with wrong tables, size or name, or none, that are right again. */
          healedLayers: z.int().default(0),
        }),
      ),
      damagedPoints: z.array(pointRef),
    }),
  },
  /** Target: makes the base of a replica from a seed that `seed.export` wrote and somebody carried here. Repeatable. */
  'seed.import': {
    request: z.strictObject({
      vmId,
      epoch,
      sourceServerId: serverId,
      policy: replicationPolicy,
      folder: z.string().min(1),
      keyBase64: base64,
    }),
    result: z.strictObject({
      blocks: z.int(),
      bytes: z.int(),
      /** Parts that were missing or could not be read to the end; what they held is sent over the network. */
      problems: z.array(z.string()),
    }),
  },
  'replica.remove': { request: z.strictObject({ vmId }), result: empty },
  'replica.pin': { request: z.strictObject({ vmId, point: pointRef, pinned: z.boolean() }), result: empty },
  'policy.update': { request: z.strictObject({ vmId, policy: replicationPolicy }), result: empty },
  /** Source: replicate from now on, first by a synchronization with the given cause. Repeatable; renews the ticket. */
  'replication.start': {
    request: z.strictObject({
      vmId,
      epoch,
      fabricVmId,
      target: peerAddress,
      ticket: base64,
      policy: replicationPolicy,
      cause: resyncCause,
      /** The first synchronization begins no earlier; null: at once. */
      notBeforeMs: z.number().nullable().default(null),
    }),
    result: empty,
  },
  'replication.renewTicket': {
    request: z.strictObject({ vmId, epoch, ticket: base64, target: peerAddress }),
    result: empty,
  },
  'replication.pause': { request: z.strictObject({ vmId }), result: empty },
  'replication.resume': { request: z.strictObject({ vmId }), result: empty },
  'replication.resync': { request: z.strictObject({ vmId, cause: resyncCause }), result: empty },
  /** Source: begin the resynchronization that waits for its window, its start time or a person's word. */
  'replication.approveResync': { request: z.strictObject({ vmId }), result: empty },
  /** Source: re-reads this part of the VM's disks now and compares with the stored leaves; what differs is sent. */
  'replication.verify': {
    request: z.strictObject({ vmId, percent: z.number().gt(0).max(100) }),
    result: z.strictObject({
      disks: z.array(
        z.strictObject({
          diskId,
          checkedBlocks: z.int(),
          totalBlocks: z.int(),
          /** Changed although the tracker did not say so. 0 for a disk without a tracker: reading it is its tracker. */
          untrackedBlocks: z.int(),
        }),
      ),
    }),
  },
  /** Source: writes the VM's disks as an encrypted seed into `folder`, in parts of at most `partBytes`. Repeatable: goes on where it stopped. */
  'seed.export': {
    request: z.strictObject({
      vmId,
      fabricVmId,
      folder: z.string().min(1),
      partBytes: z.int().positive(),
      keyBase64: base64,
    }),
    result: z.strictObject({ files: z.int(), blocks: z.int(), bytes: z.int(), capturedAtMs: z.number() }),
  },
  /** Source, the VM being off: capture what is left and return once the target acknowledged it. */
  'replication.finalDelta': {
    request: z.strictObject({ vmId }),
    result: z.strictObject({ point: pointRef, capturedAtMs: z.number() }),
  },
  /** Source: one copy cycle now, whatever the timetable says. Returns when the point is acknowledged. */
  'replication.copyNow': {
    request: z.strictObject({ vmId }),
    result: z.strictObject({ point: pointRef, capturedAtMs: z.number() }),
  },
  /** Source: stop for good and forget the VM; the buffer of it is dropped. */
  'replication.stop': { request: z.strictObject({ vmId }), result: empty },
  /** Old source: a higher epoch runs elsewhere: stop replicating and never send at an older one again. */
  'replication.fence': { request: z.strictObject({ vmId, epoch }), result: empty },
} as const

/** Commands to a provider agent. Each result is an observation, not the return of a call (I8). */
export const providerCommands = {
  ...serverCommands,
  /** Define a VM on `host` with these disks and NICs, without starting it. Repeatable by fabricVmId; redefines. */
  'vm.define': {
    request: z.strictObject({
      fabricVmId,
      name: z.string(),
      host: z.string(),
      description: vmDescription,
      disks: z.array(overlayDisk),
      nics: z.array(nicSpec),
      /** test: it runs beside its source, so nothing that has to be unique may be the same. Absent: replica. */
      purpose: z.enum(['replica', 'test']).optional(),
    }),
    result: vmObservation,
  },
  /** Start and wait until it is running, its NICs are on their networks and, within the time, a heartbeat was seen. */
  'vm.start': {
    request: z.strictObject({ fabricVmId, heartbeatTimeoutMs: z.int().positive() }),
    result: vmObservation,
  },
  /** Ask the guest to shut down and wait until it is off; an error when it is still running after the time. */
  'vm.shutDown': {
    request: z.strictObject({ fabricVmId, timeoutMs: z.int().positive() }),
    result: vmObservation,
  },
  /** Power off at once. Repeatable. */
  'vm.stop': { request: z.strictObject({ fabricVmId }), result: vmObservation },
  /** Remove the definition; disks given by `vm.define` are left to whoever made them. Repeatable. */
  'vm.remove': { request: z.strictObject({ fabricVmId }), result: vmObservation },
  /** What its display shows now; null: it has none, or the fabric cannot tell. */
  'vm.screenshot': {
    request: z.strictObject({ fabricVmId }),
    result: z.strictObject({ pngBase64: base64.max(MAX_SCREENSHOT_BASE64).nullable() }),
  },
  'vm.observe': { request: z.strictObject({ fabricVmId }), result: vmObservation },
  /** Refuse to start the VM from now on and power it off if it runs: it runs elsewhere at a higher epoch (I5). */
  'vm.fence': { request: z.strictObject({ fabricVmId, epoch, reason: z.string() }), result: vmObservation },
  'vm.unfence': { request: z.strictObject({ fabricVmId }), result: vmObservation },
} as const

export const commands = { ...agentCommands, ...providerCommands }
export type CommandKind = keyof typeof commands
export type AgentCommandKind = keyof typeof agentCommands
export type ProviderCommandKind = keyof typeof providerCommands
export type CommandRequest<Kind extends CommandKind> = z.infer<(typeof commands)[Kind]['request']>
export type CommandResultOf<Kind extends CommandKind> = z.infer<(typeof commands)[Kind]['result']>

/** One handler per kind; a new command does not compile until every daemon that receives it handles it. */
export type CommandHandlers<Kinds extends CommandKind> = {
  readonly [Kind in Kinds]: (
    request: CommandRequest<Kind>,
    signal: AbortSignal,
  ) => Promise<CommandResultOf<Kind>>
}
