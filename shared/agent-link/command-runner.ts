import type { z } from 'zod'
import { describeIssues } from '../config.ts'
import { errorDocument, HotsiteError } from '../errors/hotsite-error.ts'
import { isNoRoom } from '../errors/no-room.ts'
import type { Logger } from '../log.ts'
import { type CommandHandlers, type CommandKind, commands } from '../messages/commands.ts'
import type { CommandResultStore, RememberedResult } from './command-results.ts'

/** Commands running at one time; a coordinator that sends more is told to wait. Each may hold a handle to a disk. */
export const COMMANDS_RUNNING_MAX = 256

export interface CommandRunnerOptions<Kinds extends CommandKind> {
  readonly kinds: readonly Kinds[]
  readonly handlers: CommandHandlers<Kinds>
  readonly store: CommandResultStore
  readonly log: Logger
  readonly signal: AbortSignal
}

export interface CommandRunner {
  /** Never rejects: a failure is a result too. A repeat of a running command attaches to it. */
  run(command: { commandId: string; kind: string; json: Uint8Array }): Promise<RememberedResult>
}

export function createCommandRunner<Kinds extends CommandKind>(
  options: CommandRunnerOptions<Kinds>,
): CommandRunner {
  const running = new Map<string, Promise<RememberedResult>>()
  const { store, log } = options

  /** What was done is done: with no room to remember it, a repeat of the command runs once more (I4). */
  const remember = (commandId: string, result: RememberedResult) => {
    try {
      store.put(commandId, result)
    } catch (error) {
      if (!isNoRoom(error)) throw error
      log.warn('the result of a command could not be kept', { commandId, error })
    }
  }

  const runOnce = async (command: { commandId: string; kind: string; json: Uint8Array }) => {
    const fields = { commandId: command.commandId, kind: command.kind }
    log.info('command started', fields)
    try {
      const result = { ok: true, json: encode(await handle(options, command)) }
      remember(command.commandId, result)
      log.info('command done', fields)
      return result
    } catch (error) {
      const document = errorDocument(error)
      const result = { ok: false, json: encode(document) }
      // A failure that may pass is not the answer for ever: the same command id may be tried again.
      if (!document.retryable) remember(command.commandId, result)
      log.warn('command failed', { ...fields, error })
      return result
    }
  }

  return {
    run(command) {
      const attached = running.get(command.commandId)
      if (attached) return attached
      const remembered = store.get(command.commandId)
      if (remembered) return Promise.resolve(remembered)
      if (running.size >= COMMANDS_RUNNING_MAX) {
        const busy = new HotsiteError('agent-busy', `${running.size} commands are running already`)
        return Promise.resolve({ ok: false, json: encode(errorDocument(busy)) })
      }
      const started = runOnce(command).finally(() => running.delete(command.commandId))
      running.set(command.commandId, started)
      return started
    },
  }
}

async function handle<Kinds extends CommandKind>(
  { kinds, handlers, signal }: CommandRunnerOptions<Kinds>,
  command: { readonly kind: string; readonly json: Uint8Array },
): Promise<unknown> {
  const kind = kinds.find((known) => known === command.kind)
  if (kind === undefined) {
    throw new HotsiteError('command-unknown', `this agent does not know the command "${command.kind}"`)
  }
  const schemas: { readonly request: z.ZodType; readonly result: z.ZodType } = commands[kind]
  const request = schemas.request.safeParse(decode(command.json))
  if (!request.success) {
    throw new HotsiteError('request-invalid', `${kind}: ${describeIssues(request.error)}`)
  }
  // The table binds kind, request and result; the union over kinds cannot express that one lookup fits the other.
  const run = handlers[kind] as (request: unknown, signal: AbortSignal) => Promise<unknown>
  return schemas.result.parse(await run(request.data, signal))
}

function encode(document: unknown): Buffer {
  return Buffer.from(JSON.stringify(document))
}

/** undefined for what is no JSON: the schema then says what it expected. */
function decode(json: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(json).toString('utf8'))
  } catch {
    return undefined
  }
}
