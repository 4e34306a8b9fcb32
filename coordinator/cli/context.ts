import { homedir } from 'node:os'
import type { Command } from 'commander'
import { defaultSocketPath } from '#coordinator/admin/socket-path.ts'
import type { Clock } from '#shared/clock.ts'
import { type Client, createClient } from './client.ts'
import { exitCodes } from './exit-codes.ts'
import { paintFor, type Terminal, widthOf } from './terminal.ts'
import type { Paint } from './text/style.ts'
import { type Cell, type Column, tableLines } from './text/table.ts'

export type DaemonName = 'coordinator' | 'provider' | 'agent'
/** Runs until the signal aborts. */
export type RunDaemon = (configPath: string, signal: AbortSignal) => Promise<void>

/** What every command works with. */
export interface Context {
  readonly terminal: Terminal
  readonly clock: Clock
  readonly paint: Paint
  readonly daemons: Readonly<Record<DaemonName, RunDaemon>>
  /** What the process ends with; 0 unless a command says otherwise. */
  exitCode: number
}

export interface GlobalOptions {
  readonly json?: boolean
  readonly socket?: string
}

export function createContext(options: Pick<Context, 'terminal' | 'clock' | 'daemons'>): Context {
  return { ...options, paint: paintFor(options.terminal), exitCode: exitCodes.ok }
}

export function globalsOf(command: Command): GlobalOptions {
  return command.optsWithGlobals<GlobalOptions>()
}

export function clientFor(context: Context, command: Command): Client {
  const { env } = context.terminal
  const place = { platform: process.platform, uid: process.getuid?.() ?? -1, homeDir: homedir() }
  return createClient(globalsOf(command).socket ?? env['HOTSITE_SOCKET'] ?? defaultSocketPath(env, place))
}

export function printLines(context: Context, lines: readonly string[]): void {
  for (const line of lines) context.terminal.out.write(`${line}\n`)
}

/** The view itself with --json, the text for people otherwise. */
export function show<Value>(
  context: Context,
  command: Command,
  value: Value,
  text: (value: Value) => readonly string[],
): void {
  if (globalsOf(command).json) printLines(context, [JSON.stringify(value, null, 2)])
  else printLines(context, text(value))
}

export function table(
  context: Context,
  columns: readonly Column[],
  rows: readonly (readonly Cell[])[],
): string[] {
  return tableLines(columns, rows, { width: widthOf(context.terminal), paint: context.paint })
}
