import { type Paint, painter } from './text/style.ts'

export type TerminalOutput = NodeJS.WritableStream & { readonly isTTY?: boolean; readonly columns?: number }

/** Where the command line reads and writes; the process's own streams, or a test's. */
export interface Terminal {
  readonly out: TerminalOutput
  readonly err: TerminalOutput
  readonly in: NodeJS.ReadableStream & { readonly isTTY?: boolean }
  readonly env: Readonly<Record<string, string | undefined>>
}

/** The widest table: beyond it a line is hard to follow. */
const maxWidth = 120

/** A pipe has no width: what goes into a file or to grep is never cut. */
export function widthOf(terminal: Terminal): number {
  return terminal.out.isTTY ? Math.min(terminal.out.columns || 80, maxWidth) : Number.POSITIVE_INFINITY
}

/** https://no-color.org */
export function coloursOn(stream: TerminalOutput, env: Terminal['env']): boolean {
  return stream.isTTY === true && !env['NO_COLOR'] && env['TERM'] !== 'dumb'
}

export function paintFor(terminal: Terminal): Paint {
  return painter(coloursOn(terminal.out, terminal.env))
}

export function isInteractive(terminal: Terminal): boolean {
  return terminal.in.isTTY === true && terminal.err.isTTY === true
}
