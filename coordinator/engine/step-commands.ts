import { errorFromDocument, HotsiteError } from '#shared/errors/hotsite-error.ts'
import { type CommandId, commandId } from '#shared/ids.ts'
import { type CommandKind, type CommandResultOf, commands } from '#shared/messages/commands.ts'
import { commandAttempts, retryAfterMs } from '../domain/jobs.ts'
import type { JobRow, StepRow } from '../store/jobs.ts'
import { findCommand, type OutboxRow, putCommand } from '../store/outbox.ts'
import { listServers } from '../store/servers.ts'
import type { Engine } from './engine.ts'
import type { CommandOutcome, CommandSpec } from './step.ts'

interface Origin {
  readonly engine: Engine
  readonly job: JobRow
  readonly step: StepRow
}

/** "<job>:<step>[.<label>]:<attempt>": asked again after a restart, a step finds the row it made before. */
export function commandIdOf(
  { job, step }: Pick<Origin, 'job' | 'step'>,
  label: string | undefined,
  attempt: number,
): CommandId {
  const undo = step.phase === 'undo' ? 'undo.' : ''
  return commandId.parse(`${job.jobId}:${undo}${step.name}${label ? `.${label}` : ''}:${attempt}`)
}

export async function ensureCommand<Kind extends CommandKind>(
  origin: Origin,
  spec: CommandSpec<Kind>,
): Promise<CommandOutcome<Kind>> {
  const { engine, job } = origin
  const limit = Math.min(spec.attempts ?? commandAttempts, commandAttempts)
  for (let attempt = 1; ; attempt += 1) {
    const id = commandIdOf(origin, spec.label, attempt)
    const row = await findCommand(engine.db, job.vaultId, id)
    if (!row) {
      await send(origin, spec, id)
      return open(origin, spec)
    }
    if (row.state === 'open') return open(origin, spec)
    if (row.state === 'done') return resultOf(spec.kind, row)
    const error = failureOf(row)
    const pauseMs = attempt < limit ? retryAfterMs({ retryable: error.retryable, attempt }) : undefined
    if (pauseMs === undefined) return { kind: 'failed', error }
    const next = await findCommand(engine.db, job.vaultId, commandIdOf(origin, spec.label, attempt + 1))
    const sinceMs = engine.clock.now() - (row.endedAtMs ?? 0)
    // A clock that was set back must not stop the retry.
    if (!next && sinceMs >= 0 && sinceMs < pauseMs)
      return {
        kind: 'open',
        connected: true,
        outcome: { kind: 'pending', observed: { retrying: `${error.code}: ${error.message}`, attempt } },
      }
  }
}

async function send<Kind extends CommandKind>(
  { engine, job }: Origin,
  spec: CommandSpec<Kind>,
  id: CommandId,
): Promise<void> {
  const servers = await listServers(engine.db, job.vaultId)
  if (!servers.some(({ serverId }) => serverId === spec.server))
    throw new HotsiteError('server-removed', `server ${spec.server} is no longer a member of the vault`)
  const { server, kind, request } = spec
  await putCommand(
    engine.db,
    { vaultId: job.vaultId, commandId: id, serverId: server, vmId: job.vmId, kind, request },
    engine.clock.now(),
  )
  engine.crashPoint('command-stored')
  engine.bus.notify()
}

async function open<Kind extends CommandKind>(
  { engine, job }: Origin,
  spec: CommandSpec<Kind>,
): Promise<CommandOutcome<Kind>> {
  if (engine.connections.isConnected(job.vaultId, spec.server))
    return { kind: 'open', connected: true, outcome: { kind: 'pending' } }
  const servers = await listServers(engine.db, job.vaultId)
  const server = servers.find(({ serverId }) => serverId === spec.server)
  const reason = `${server?.kind ?? 'server'} ${server?.name ?? spec.server} is not connected (${spec.kind})`
  return { kind: 'open', connected: false, outcome: { kind: 'waiting', reason } }
}

function resultOf<Kind extends CommandKind>(kind: Kind, row: OutboxRow): CommandOutcome<Kind> {
  const parsed = commands[kind].result.safeParse(JSON.parse(row.result ?? 'null'))
  if (parsed.success) return { kind: 'done', result: parsed.data as CommandResultOf<Kind> }
  return {
    kind: 'failed',
    error: new HotsiteError('agent-answer-invalid', `the answer to ${kind} has an unknown form`, {
      cause: parsed.error,
    }),
  }
}

function failureOf(row: OutboxRow): HotsiteError {
  if (row.state === 'abandoned')
    return new HotsiteError('server-removed', `${row.kind} was given up: its server was removed`)
  return errorFromDocument(JSON.parse(row.error ?? '{"code":"internal","message":"no error given"}'))
}
