/** What the admin socket answers: shapes for the CLI, the OpenAPI description and anyone with curl. Times are ms since 1970. */
import { z } from 'zod'
import { replicationPolicy } from '#shared/messages/policy.ts'
import { diskProof, pointReport, replicationReport } from '#shared/messages/reports.ts'

export const errorView = z.object({
  code: z.string(),
  message: z.string(),
  possibleCause: z.string(),
  recommendedAction: z.string(),
  retryable: z.boolean(),
  details: z.record(z.string(), z.unknown()),
})

export const vaultView = z.object({
  vaultId: z.string(),
  name: z.string(),
  region: z.string(),
  subscription: z.string(),
  createdAtMs: z.number(),
  keyGeneration: z.int(),
  publicKeyBase64: z.string(),
  certificate: z
    .object({
      subject: z.string(),
      thumbprintSha256: z.string(),
      notBeforeMs: z.number(),
      notAfterMs: z.number(),
    })
    .nullable(),
})
export type VaultView = z.infer<typeof vaultView>

/** The registration file of DESIGN §4. Its content is a secret: it is asked for by name and shown nowhere else (I15). */
export const credentialsView = z.object({
  fileName: z.string(),
  content: z.string(),
  expiresAtMs: z.number(),
})
export type CredentialsView = z.infer<typeof credentialsView>

export const serverView = z.object({
  serverId: z.string(),
  kind: z.enum(['provider', 'agent']),
  name: z.string(),
  host: z.string().nullable(),
  version: z.string().nullable(),
  registeredAtMs: z.number(),
  connected: z.boolean(),
  lastSeenAtMs: z.number().nullable(),
  clockSkewMs: z.number().nullable(),
  bytesReceived: z.int(),
  bytesSent: z.int(),
})
export type ServerView = z.infer<typeof serverView>

export const cloudView = z.object({
  vmmServer: z.string(),
  cloud: z.string(),
  hosts: z.array(z.object({ name: z.string(), agentConnected: z.boolean().nullable() })),
  vmCount: z.int(),
  role: z.enum(['none', 'source', 'target']),
  pairing: z
    .object({
      pairingId: z.string(),
      other: z.string(),
      policy: replicationPolicy,
      networkMap: z.record(z.string(), z.string()),
    })
    .nullable(),
})
export type CloudView = z.infer<typeof cloudView>

export const vmView = z.object({
  /** Of a protected VM; null for one that is not. */
  vmId: z.string().nullable(),
  fabricVmId: z.string(),
  name: z.string(),
  vmmServer: z.string(),
  cloud: z.string().nullable(),
  host: z.string(),
  power: z.enum(['off', 'running']),
  state: z.string(),
  stateText: z.string(),
  health: z.enum(['none', 'normal', 'warning', 'critical']),
  healthReasons: z.array(z.string()),
  /** The same with how bad each is and what answers it, if a command does. */
  healthFindings: z.array(
    z.object({
      severity: z.enum(['warning', 'critical']),
      text: z.string(),
      command: z.string().nullable(),
    }),
  ),
  allowedOperations: z.array(z.string()),
  epoch: z.int().nullable(),
  dataAgeMs: z.number().nullable(),
  testFailover: z.object({
    state: z.string(),
    notes: z.string().nullable(),
    startedAtMs: z.number().nullable(),
  }),
  lastDrill: z.object({ atMs: z.number(), ok: z.boolean(), notes: z.string() }).nullable(),
  source: z.object({ vmmServer: z.string(), host: z.string() }).nullable(),
  target: z.object({ vmmServer: z.string(), host: z.string() }).nullable(),
  policy: replicationPolicy.nullable(),
  points: z.int(),
  progress: replicationReport.shape.progress,
  /** A synchronization that is due and has not begun to send: cause, estimate, and what it waits for. */
  resync: replicationReport.shape.resync.removeDefault(),
  /** Per disk the worse of what source and target have proved; empty: neither has reported yet. */
  proof: z.array(diskProof),
  /** Of the buffer and the link, at the source. */
  forecast: replicationReport.shape.forecast.removeDefault(),
  /** Copy cycles that wait in the buffer of the source after an outage. */
  catchUp: replicationReport.shape.catchUp.removeDefault(),
  /** Points of an outage, older than the newest, that are still being brought to the target. */
  owedPoints: z.int(),
  /** Added to each cycle until the merges at the target have caught up. */
  slowedByMs: z.int(),
  /** Bytes still to be merged at the target. */
  mergeDebtBytes: z.int(),
  /** Offline: the newest complete export. null: none, or the first copy is done. */
  seed: z.object({ folder: z.string(), files: z.int(), bytes: z.int(), exportedAtMs: z.number() }).nullable(),
  lastCycle: z
    .object({
      seq: z.int(),
      capturedAtMs: z.number(),
      changedBytes: z.int(),
      sentBytes: z.int(),
      freezeMs: z.number(),
    })
    .nullable(),
  totals: z.object({ changedBytes: z.int(), sentBytes: z.int(), cycles: z.int() }).nullable(),
  currentJob: z.string().nullable(),
})
export type VmView = z.infer<typeof vmView>

export const pointChoice = z
  .string()
  .regex(/^(latest|[1-9]\d*\.\d+)$/, '"latest" or "<epoch>.<seq>" as in "hotsite point list"')

/** "<epoch>.<seq>" names a point everywhere a person types one; "latest" is the newest. */
export const pointView = pointReport.extend({ name: z.string(), ageMs: z.number() }).strip()
export type PointView = z.infer<typeof pointView>

export const jobView = z.object({
  jobId: z.string(),
  kind: z.string(),
  vm: z.string().nullable(),
  state: z.enum(['running', 'waiting', 'succeeded', 'failed', 'cancelled']),
  createdAtMs: z.number(),
  endedAtMs: z.number().nullable(),
  steps: z.array(
    z.object({
      name: z.string(),
      title: z.string(),
      state: z.enum(['pending', 'running', 'succeeded', 'failed', 'skipped']),
      startedAtMs: z.number().nullable(),
      endedAtMs: z.number().nullable(),
      observed: z.record(z.string(), z.unknown()).nullable(),
    }),
  ),
  error: errorView.nullable(),
})
export type JobView = z.infer<typeof jobView>

export const jobPictureView = z.object({ job: z.string(), takenAtMs: z.number(), pngBase64: z.base64() })
export type JobPictureView = z.infer<typeof jobPictureView>

export const eventView = z.object({
  eventId: z.string(),
  atMs: z.number(),
  severity: z.enum(['info', 'warning', 'critical']),
  code: z.string(),
  message: z.string(),
  vm: z.string().nullable(),
})
export type EventView = z.infer<typeof eventView>

/** The one-screen answer to "am I safe?". */
export const statusView = z.object({
  vault: z.string().nullable(),
  nowMs: z.number(),
  version: z.string(),
  verdict: z.enum(['safe', 'attention', 'danger', 'nothing-protected']),
  servers: z.object({ total: z.int(), connected: z.int() }),
  vms: z.array(vmView),
  /** What needs a person, most urgent first: a sentence and the command that answers it. */
  needsAttention: z.array(
    z.object({
      severity: z.enum(['info', 'warning', 'critical']),
      text: z.string(),
      command: z.string().nullable(),
    }),
  ),
})
export type StatusView = z.infer<typeof statusView>
