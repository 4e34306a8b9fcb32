import { createInterface } from 'node:readline/promises'
import type { Command } from 'commander'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { Context } from './context.ts'
import { exitCodes } from './exit-codes.ts'
import { isInteractive } from './terminal.ts'

export function addYesOption(command: Command): Command {
  return command.option('-y, --yes', 'do it without asking')
}

/** Asks before what cannot be undone. False: the person said no, and the exit code says so. */
export async function confirmed(
  context: Context,
  consequence: string,
  yes: boolean | undefined,
): Promise<boolean> {
  if (yes) return true
  const { terminal } = context
  if (!isInteractive(terminal))
    throw new HotsiteError('confirmation-needed', `${consequence} There is no terminal to ask on.`)
  const prompt = createInterface({ input: terminal.in, output: terminal.err })
  try {
    const answer = await prompt.question(`${consequence}\nGo on? [y/N] `)
    if (/^\s*y(es)?\s*$/i.test(answer)) return true
  } finally {
    prompt.close()
  }
  terminal.err.write('Nothing was done.\n')
  context.exitCode = exitCodes.refused
  return false
}
