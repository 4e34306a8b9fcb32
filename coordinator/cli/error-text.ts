import { CommanderError } from 'commander'
import { type ErrorDocument, errorDocument, HotsiteError } from '#shared/errors/hotsite-error.ts'
import { exitCodeOf, exitCodes } from './exit-codes.ts'
import { coloursOn, type Terminal } from './terminal.ts'
import { type Paint, painter, visible } from './text/style.ts'

/** What happened, the likely cause, what to do. */
export function errorLines(error: ErrorDocument, paint: Paint): string[] {
  return [
    `${paint('bad', 'Error:')} ${visible(error.message)} ${paint('dim', `[${error.code}]`)}`,
    `${paint('dim', 'Likely cause:')} ${error.possibleCause}`,
    `${paint('dim', 'What to do:')}   ${error.recommendedAction}`,
  ]
}

/** Prints the error to standard error and returns the exit code. With --json the error is one JSON document there. */
export function reportError(error: unknown, terminal: Terminal, json: boolean): number {
  if (error instanceof CommanderError) {
    // Help and version are no errors; everything else commander has printed already.
    return error.exitCode === 0 ? exitCodes.ok : exitCodes.usage
  }
  const document = errorDocument(error)
  if (json) terminal.err.write(`${JSON.stringify({ error: document })}\n`)
  else {
    for (const line of errorLines(document, painter(coloursOn(terminal.err, terminal.env))))
      terminal.err.write(`${line}\n`)
    if (!(error instanceof HotsiteError) && error instanceof Error && terminal.env['HOTSITE_DEBUG'])
      terminal.err.write(`${error.stack}\n`)
  }
  return exitCodeOf(document.code)
}
