import type { LogFields, Logger } from '#shared/log.ts'

/** Everything that was logged, as text, for what must not be in it. */
export function collectingLog(): { readonly log: Logger; readonly text: () => string } {
  const lines: string[] = []
  const bound = (more: LogFields): Logger => {
    const line = (event: string, fields: LogFields = {}) => {
      const { error, ...rest } = { ...more, ...fields }
      const shown = error instanceof Error ? `${error.message} ${error.stack} ${String(error.cause)}` : error
      lines.push(JSON.stringify({ event, ...rest, error: shown }))
    }
    return {
      debug: line,
      info: line,
      warn: line,
      error: line,
      with: (fields) => bound({ ...more, ...fields }),
    }
  }
  return { log: bound({}), text: () => lines.join('\n') }
}
