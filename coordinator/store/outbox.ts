/**
 * Commands to agents are rows. A row is open until its result came; an agent that connects gets the open ones in order.
 * Commands about one VM at one server go one at a time, so that a fence never overtakes what it follows.
 */
import type { Selectable } from 'kysely'
import type { CommandId, ServerId, VaultId, VmId } from '#shared/ids.ts'
import type { CommandKind, CommandRequest } from '#shared/messages/commands.ts'
import type { Database, Db, OutboxState } from './schema.ts'

export interface OutboxRow {
  readonly vaultId: VaultId
  readonly commandId: CommandId
  readonly sequence: number
  readonly serverId: ServerId
  readonly vmId: VmId
  readonly kind: CommandKind
  /** JSON. */
  readonly request: string
  readonly state: OutboxState
  /** JSON, as the agent sent it. */
  readonly result: string | null
  readonly error: string | null
  readonly endedAtMs: number | null
}

export interface NewCommand<Kind extends CommandKind = CommandKind> {
  readonly vaultId: VaultId
  readonly commandId: CommandId
  readonly serverId: ServerId
  readonly vmId: VmId
  readonly kind: Kind
  readonly request: CommandRequest<Kind>
}

const fromRow = (row: Selectable<Database['outbox']>): OutboxRow => ({
  vaultId: row.vault_id as VaultId,
  commandId: row.command_id as CommandId,
  sequence: row.sequence,
  serverId: row.server_id as ServerId,
  vmId: row.vm_id as VmId,
  kind: row.kind as CommandKind,
  request: row.request,
  state: row.state,
  result: row.result,
  error: row.error,
  endedAtMs: row.ended_at_ms,
})

/** A command of that id that is there already stays as it is (I4). */
export async function putCommand(db: Db, command: NewCommand, nowMs: number): Promise<void> {
  await db
    .insertInto('outbox')
    .values({
      vault_id: command.vaultId,
      command_id: command.commandId,
      server_id: command.serverId,
      vm_id: command.vmId,
      kind: command.kind,
      request: JSON.stringify(command.request),
      state: 'open',
      result: null,
      error: null,
      created_at_ms: nowMs,
      ended_at_ms: null,
    })
    .onConflict((conflict) => conflict.columns(['vault_id', 'command_id']).doNothing())
    .execute()
}

export async function findCommand(
  db: Db,
  vaultId: VaultId,
  commandId: CommandId,
): Promise<OutboxRow | undefined> {
  const row = await db
    .selectFrom('outbox')
    .selectAll()
    .where('vault_id', '=', vaultId)
    .where('command_id', '=', commandId)
    .executeTakeFirst()
  return row && fromRow(row)
}

/** "~" sorts after every id. */
export async function newestCommand(
  db: Db,
  vaultId: VaultId,
  idPrefix: string,
): Promise<OutboxRow | undefined> {
  const row = await db
    .selectFrom('outbox')
    .selectAll()
    .where('vault_id', '=', vaultId)
    .where('command_id', '>=', idPrefix)
    .where('command_id', '<', `${idPrefix}~`)
    .orderBy('sequence', 'desc')
    .limit(1)
    .executeTakeFirst()
  return row && fromRow(row)
}

/** They change nothing that a later command builds on, and last for hours: nothing waits behind them. */
const besideOthers: ReadonlySet<CommandKind> = new Set([
  'replication.verify',
  'replica.verify',
  'replication.approveResync',
])

/** The oldest open command of each VM at this server, and those that run beside it: what may be under way there now. */
export async function dueCommands(
  db: Db,
  vaultId: VaultId,
  serverId: ServerId,
): Promise<readonly OutboxRow[]> {
  const rows = await db
    .selectFrom('outbox')
    .selectAll()
    .where('vault_id', '=', vaultId)
    .where('server_id', '=', serverId)
    .where('state', '=', 'open')
    .orderBy('sequence')
    .execute()
  const seen = new Set<string>()
  return rows
    .map(fromRow)
    .filter(({ vmId, kind }) => besideOthers.has(kind) || (!seen.has(vmId) && Boolean(seen.add(vmId))))
}

export interface CommandEnd {
  readonly state: Exclude<OutboxState, 'open'>
  readonly result?: string
  readonly error?: string
  readonly nowMs: number
}

/** The first result counts; later ones of the same id are repeats. False: it was one. */
export async function endCommand(
  db: Db,
  { vaultId, commandId, serverId }: Pick<OutboxRow, 'vaultId' | 'commandId' | 'serverId'>,
  end: CommandEnd,
): Promise<boolean> {
  const { numUpdatedRows } = await db
    .updateTable('outbox')
    .set({
      state: end.state,
      result: end.result ?? null,
      error: end.error ?? null,
      ended_at_ms: end.nowMs,
    })
    .where('vault_id', '=', vaultId)
    .where('command_id', '=', commandId)
    .where('server_id', '=', serverId)
    .where('state', '=', 'open')
    .executeTakeFirst()
  return numUpdatedRows === 1n
}

/** Gives up what is open under a prefix: its job undoes its work, or no longer waits for it. "~" sorts after every id. */
export async function abandonCommands(
  db: Db,
  { vaultId, idPrefix, nowMs }: { vaultId: VaultId; idPrefix: string; nowMs: number },
): Promise<void> {
  await db
    .updateTable('outbox')
    .set({ state: 'abandoned', ended_at_ms: nowMs })
    .where('vault_id', '=', vaultId)
    .where('command_id', '>=', idPrefix)
    .where('command_id', '<', `${idPrefix}~`)
    .where('state', '=', 'open')
    .execute()
}

/** Results older than this are of no use to anyone: jobs keep what they observed. */
export async function pruneOutbox(db: Db, beforeMs: number): Promise<void> {
  await db
    .deleteFrom('outbox')
    .where('state', '!=', 'open')
    .where('ended_at_ms', '<', beforeMs)
    .where((where) =>
      where.not(
        where.exists(
          where
            .selectFrom('jobs')
            .select('jobs.job_id')
            .whereRef('jobs.vault_id', '=', 'outbox.vault_id')
            .whereRef('jobs.vm_id', '=', 'outbox.vm_id')
            .where('jobs.state', 'in', ['running', 'waiting']),
        ),
      ),
    )
    .execute()
}
