import { systemClock } from '#shared/clock.ts'
import { createContext, type DaemonName, type RunDaemon } from './context.ts'
import { reportError } from './error-text.ts'
import { exitCodes } from './exit-codes.ts'
import { InterruptedError } from './job-wait.ts'
import { buildProgram } from './program.ts'
import type { Terminal } from './terminal.ts'

export interface CliOptions {
  /** Without the interpreter and the script. */
  readonly arguments: readonly string[]
  readonly terminal: Terminal
  readonly daemons: Readonly<Record<DaemonName, RunDaemon>>
  readonly version: string
}

/** Runs one command and returns the exit code; never throws. */
export async function runCli({ arguments: words, terminal, daemons, version }: CliOptions): Promise<number> {
  const context = createContext({ terminal, daemons, clock: systemClock })
  try {
    await buildProgram(context, version).parseAsync(words, { from: 'user' })
    return context.exitCode
  } catch (error) {
    if (error instanceof InterruptedError) {
      terminal.err.write(`${error.message}\n`)
      return exitCodes.interrupted
    }
    return reportError(error, terminal, words.includes('--json'))
  }
}
