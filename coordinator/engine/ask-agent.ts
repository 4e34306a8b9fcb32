import { errorFromDocument, HotsiteError } from '#shared/errors/hotsite-error.ts'
import { commandId } from '#shared/ids.ts'
import type { CommandKind, CommandRequest } from '#shared/messages/commands.ts'
import type { ProtectedVm, Side } from '../store/documents.ts'
import { endCommand, findCommand, putCommand } from '../store/outbox.ts'
import type { Engine } from './engine.ts'
import { randomId } from './random-id.ts'

/**
 * One command that is no job: it changes nothing that the coordinator keeps. Answers when the agent has done it. Throws
 * `agent-disconnected`, `agent-timeout`, and what the agent answered.
 */
export async function askAgent<Kind extends CommandKind>(
  engine: Engine,
  { vaultId, vmId }: Pick<ProtectedVm, 'vaultId' | 'vmId'>,
  { side, kind, request }: { side: Side; kind: Kind; request: CommandRequest<Kind> },
): Promise<void> {
  const { db, clock, limits, bus } = engine
  if (!engine.connections.isConnected(vaultId, side.agentId))
    throw new HotsiteError('agent-disconnected', `the recovery agent of ${side.host} is not connected`)
  const id = commandId.parse(randomId('ask', engine.rng))
  const command = { vaultId, vmId, commandId: id, serverId: side.agentId }
  await putCommand(db, { ...command, kind, request } as Parameters<typeof putCommand>[1], clock.now())
  bus.notify()
  const untilMs = clock.monotonicMs() + limits.tidyWaitMs
  while (clock.monotonicMs() < untilMs) {
    const seen = bus.version
    const row = await findCommand(db, vaultId, id)
    if (row?.state === 'done') return
    if (row?.state === 'failed') throw errorFromDocument(JSON.parse(row.error ?? '{}'))
    await bus.changedSince(seen, {
      timeoutMs: limits.jobPollMs,
      signal: AbortSignal.timeout(limits.tidyWaitMs),
    })
  }
  await endCommand(db, command, { state: 'abandoned', nowMs: clock.now() })
  throw new HotsiteError('agent-timeout', `the recovery agent of ${side.host} did not answer`)
}
