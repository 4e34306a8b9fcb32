/** state.db: what the agent must know to go on without the coordinator (I12), besides buffer.db and the replicas. */
import { dirname } from 'node:path'
import { z } from 'zod'
import { commandResultSchema } from '#shared/agent-link/command-results.ts'
import { reportOutboxSchema } from '#shared/agent-link/report-outbox.ts'
import { namingFullDisk } from '#shared/errors/disk-full.ts'
import { type ServerId, serverId, type VmId } from '#shared/ids.ts'
import { agentCommands } from '#shared/messages/commands.ts'
import { cycleReport } from '#shared/messages/reports.ts'
import type { Migration, Sqlite } from '#shared/sqlite.ts'
import { openStateDb } from './open-state-db.ts'
import { guardTables } from './table-checksums.ts'

/** What would be wrong in silence if a row of it changed or went: orders and refusals. */
const guarded = {
  source_vms: ['vm_id', 'json'],
  fences: ['vm_id', 'epoch'],
  revoked_servers: ['server_id'],
}

const migrations: readonly Migration[] = [
  {
    name: 'source VMs, fences, command results, events',
    sql: `
      CREATE TABLE source_vms (vm_id TEXT PRIMARY KEY, json TEXT NOT NULL) STRICT;
      CREATE TABLE fences (vm_id TEXT PRIMARY KEY, epoch INTEGER NOT NULL) STRICT;
      ${commandResultSchema}
      ${reportOutboxSchema}
    `,
  },
  {
    name: 'servers removed from the vault',
    sql: 'CREATE TABLE revoked_servers (server_id TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;',
  },
  { name: 'checksums of tables', sql: '', step: (db) => guardTables(db, guarded) },
]

/** A synchronization that is due, from the first look at it to its point. */
const pendingResync = z.strictObject({
  /** What the cause leaves open: which point was expected where. */
  why: z.string(),
  /** It began, or a person said go: nothing holds it any more. */
  cleared: z.boolean(),
  /** The event was raised. */
  announced: z.boolean(),
})

const knownPoint = z.strictObject({
  epoch: z.int(),
  seq: z.int(),
  capturedAtMs: z.number(),
  consistency: z.enum(['crash', 'application']),
  suspect: z.boolean(),
})

/** Deltas that are being sent as one; the choice is kept through restarts, so that the transfer can be resumed. */
const runInSending = z.strictObject({ firstSeq: z.int(), lastSeq: z.int() })

const anomalyHistory = z.strictObject({
  recent: z.array(
    z.strictObject({
      changedBlocks: z.int(),
      storedShare: z.number().nullable(),
      seconds: z.number(),
      suspect: z.boolean(),
    }),
  ),
  days: z.array(z.strictObject({ day: z.int(), blocks: z.int(), denseBlocks: z.int() })),
})

/** One VM this host replicates: what the coordinator ordered, and what became of it. */
const sourceRecord = agentCommands['replication.start'].request.omit({ cause: true }).extend({
  paused: z.boolean(),
  /** A final delta was sent for a VM that is off: a later epoch is expected. */
  seenOff: z.boolean().default(false),
  lastCycle: cycleReport.nullable(),
  totals: z.strictObject({ changedBytes: z.int(), sentBytes: z.int(), cycles: z.int() }),
  resync: pendingResync.nullable().default(null),
  /** Points that the target keeps, as far as is known here (shared/policy/catch-up.ts). */
  heldPoints: z.array(knownPoint).default([]),
  catchUp: runInSending.nullable().default(null),
  /** When the newest application-consistent one was captured. */
  lastAppPointMs: z.number().nullable().default(null),
  writes: anomalyHistory.default({ recent: [], days: [] }),
})
export type SourceRecord = z.infer<typeof sourceRecord>

export interface AgentState {
  readonly db: Sqlite
  /** An error of state.db, which names the folder when its disk is full. */
  named(error: unknown): unknown
  sources(): readonly SourceRecord[]
  saveSource(record: SourceRecord): void
  removeSource(vmId: VmId): void
  /** From the return on, nothing of this VM is sent at an epoch below `epoch`, through any restart (I5). Never lowers. */
  fence(vmId: VmId, epoch: number): void
  /** The lowest epoch this host may send at; 0: any. */
  fencedBelow(vmId: VmId): number
  revokedServers(): readonly ServerId[]
  /** In place of those before; persisted before it returns. */
  saveRevokedServers(serverIds: readonly ServerId[]): void
}

/** Throws `state-damaged`: nothing may go on from a state that is not the one that was written (I5). */
export function openAgentState(path: string): AgentState {
  const db = openStateDb({ path, migrations, guarded })
  const all = db.prepare<[], { json: string }>('SELECT json FROM source_vms ORDER BY vm_id')
  const save = db.prepare<[string, string]>(
    'INSERT INTO source_vms (vm_id, json) VALUES (?, ?) ON CONFLICT (vm_id) DO UPDATE SET json = excluded.json',
  )
  const remove = db.prepare<[string]>('DELETE FROM source_vms WHERE vm_id = ?')
  const raise = db.prepare<[string, number]>(
    'INSERT INTO fences (vm_id, epoch) VALUES (?, ?) ON CONFLICT (vm_id) DO UPDATE SET epoch = max(epoch, excluded.epoch)',
  )
  const fence = db.prepare<[string], { epoch: number }>('SELECT epoch FROM fences WHERE vm_id = ?')
  const revoked = db.prepare<[], { server_id: string }>('SELECT server_id FROM revoked_servers')
  const forgetRevoked = db.prepare<[]>('DELETE FROM revoked_servers')
  const revoke = db.prepare<[string]>('INSERT OR IGNORE INTO revoked_servers (server_id) VALUES (?)')
  const saveRevoked = db.transaction((serverIds: readonly ServerId[]) => {
    forgetRevoked.run()
    for (const id of serverIds) revoke.run(id)
  })
  return {
    db,
    named: (error) => namingFullDisk(error, { what: 'state.db', dir: dirname(path) }),
    sources: () => all.all().map(({ json }) => sourceRecord.parse(JSON.parse(json))),
    saveSource: (record) => save.run(record.vmId, JSON.stringify(record)),
    removeSource: (vmId) => remove.run(vmId),
    fence: (vmId, epoch) => raise.run(vmId, epoch),
    fencedBelow: (vmId) => fence.get(vmId)?.epoch ?? 0,
    revokedServers: () => revoked.all().map((row) => serverId.parse(row.server_id)),
    saveRevokedServers: (serverIds) => saveRevoked.immediate(serverIds),
  }
}
