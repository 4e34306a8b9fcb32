/** The JSON columns: what may stand in them, checked on the way out, so that an older row is an error and not a surprise. */
import { z } from 'zod'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { fabricVmId, overlayId, pairingId, serverId, vaultId, vmId } from '#shared/ids.ts'
import { resyncCause } from '#shared/messages/commands.ts'
import { replicationPolicy } from '#shared/messages/policy.ts'
import { nicSpec, vmDescription } from '#shared/messages/vm.ts'

const pointRef = z.object({ epoch: z.int(), seq: z.int() })
const landing = z.object({ overlayId, point: pointRef, capturedAtMs: z.number() })
const replicating = [
  z.object({ kind: z.literal('protected') }),
  z.object({ kind: z.literal('paused') }),
  z.object({ kind: z.literal('resynchronizing'), cause: resyncCause }),
] as const
const failoverKind = z.enum(['planned', 'unplanned', 'changePoint'])

const protection = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('enabling') }),
  z.object({ kind: z.literal('awaitingSeed') }),
  z.object({ kind: z.literal('initialReplication') }),
  ...replicating,
  z.object({
    kind: z.literal('failingOver'),
    failover: failoverKind,
    step: z.string(),
    before: z.discriminatedUnion('kind', replicating).nullable(),
  }),
  z.object({
    kind: z.literal('failoverFailed'),
    failover: failoverKind,
    step: z.string(),
    reason: z.string(),
  }),
  z.object({ kind: z.literal('failedOver'), failover: failoverKind, landing }),
  z.object({ kind: z.literal('committed'), landing }),
  z.object({ kind: z.literal('reversing'), landing }),
  z.object({ kind: z.literal('disabling'), from: z.string() }),
])

const drill = z.object({ atMs: z.number(), ok: z.boolean(), notes: z.string() }).nullable()
const testRun = z.object({
  overlayId,
  fabricVmId,
  startedAtMs: z.number(),
  point: pointRef.nullable(),
  network: z.string().nullable(),
})
const test = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('none'), lastDrill: drill }),
  z.object({ kind: z.literal('preparing'), run: testRun, lastDrill: drill }),
  z.object({ kind: z.literal('running'), run: testRun, lastDrill: drill }),
  z.object({
    kind: z.literal('cleaningUp'),
    run: testRun,
    notes: z.string(),
    outcome: z.enum(['passed', 'failed']),
    lastDrill: drill,
  }),
])

/** One of the two places a protected VM lives in. They change roles when replication is reversed. */
const side = z.object({
  vmmServer: z.string(),
  cloud: z.string(),
  host: z.string(),
  providerId: serverId,
  agentId: serverId,
  fabricVmId,
  /** The VM's NICs on this side's networks. */
  nics: z.array(nicSpec),
  /** This side's provider holds a fence on the VM; it is lifted before the VM is started here again. */
  fenced: z.boolean(),
})
export type Side = z.infer<typeof side>

const protectedVm = z.object({
  vaultId,
  vmId,
  pairingId,
  name: z.string(),
  description: vmDescription,
  policy: replicationPolicy,
  epoch: z.int().positive(),
  direction: z.enum(['forward', 'reverse']),
  source: side,
  target: side,
  protection,
  test,
  /** The overlay the VM was or is to be started on at the target. */
  overlay: overlayId.nullable(),
  /** The old source is to be told that `epoch` runs elsewhere (I5); the fence keeper goes on until both are true. */
  sourceFence: z.object({ epoch: z.int(), vmFenced: z.boolean(), replicationFenced: z.boolean() }).nullable(),
  /** The newest ticket and where it points, to renew it in time and when the target moves. */
  ticket: z.object({ issuedAtMs: z.number(), target: z.string() }).nullable(),
  protectedAtMs: z.number(),
  /** Offline: what the newest complete export wrote, at the source host. Not its key (I15). */
  seed: z
    .object({ folder: z.string(), files: z.int(), bytes: z.int(), exportedAtMs: z.number() })
    .nullable()
    .default(null),
})

/** Everything the coordinator knows of a protected VM; one row. */
export type ProtectedVm = z.infer<typeof protectedVm>
export const protectedVmDocument = protectedVm
export const protectionDocument = protection

/** Throws `internal`: only a defect or a foreign hand puts something else there. */
export function readDocument<Schema extends z.ZodType>(
  schema: Schema,
  text: string,
  where: string,
): z.output<Schema> {
  const parsed = schema.safeParse(JSON.parse(text))
  if (parsed.success) return parsed.data
  throw new HotsiteError('internal', `${where} holds a document this version does not know`, {
    cause: parsed.error,
  })
}
