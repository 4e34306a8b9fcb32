import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { pino } from 'pino'

export type LogFields = Readonly<Record<string, unknown>>

/** Structured and passed down as an argument with fields already bound. Secrets never go in (I15). */
export interface Logger {
  debug(event: string, fields?: LogFields): void
  info(event: string, fields?: LogFields): void
  warn(event: string, fields?: LogFields): void
  error(event: string, fields?: LogFields): void
  with(fields: LogFields): Logger
}

export interface LogConfig {
  readonly level: 'debug' | 'info' | 'warn' | 'error'
  /** Folder of the rotated files; undefined writes to standard error. */
  readonly dir?: string | undefined
}

/** Errors carry their code and cause chain; Node's own objects carry noise. */
function errorFields(error: unknown): unknown {
  if (!(error instanceof Error)) return error
  return {
    name: error.name,
    message: error.message,
    ...('code' in error ? { code: error.code } : {}),
    stack: error.stack,
    ...(error.cause ? { cause: errorFields(error.cause) } : {}),
  }
}

const closeTimeoutMs = 5_000
/** After a file could not be written. */
const reopenAfterMs = 30_000

function wrap(target: pino.Logger): Logger {
  const line =
    (level: 'debug' | 'info' | 'warn' | 'error') =>
    (event: string, fields: LogFields = {}) => {
      const shown = 'error' in fields ? { ...fields, error: errorFields(fields['error']) } : fields
      target[level](shown, event)
    }
  return {
    debug: line('debug'),
    info: line('info'),
    warn: line('warn'),
    error: line('error'),
    with: (fields) => wrap(target.child(fields)),
  }
}

/** Opens the log of one daemon: `<dir>/<name>.<n>.log`, rotated at 10 MiB, eight kept. */
export function openLog(name: string, config: LogConfig): Logger & AsyncDisposable {
  const base = { base: { daemon: name }, level: config.level, messageKey: 'event' }
  if (!config.dir) {
    const logger = wrap(pino(base, pino.destination({ fd: 2, sync: true })))
    return { ...logger, [Symbol.asyncDispose]: async () => {} }
  }
  mkdirSync(config.dir, { recursive: true, mode: 0o750 })
  const file = new LogFile(join(config.dir, name))
  const logger = wrap(pino(base, file))
  return { ...logger, [Symbol.asyncDispose]: () => file.close() }
}

/** A disk without room for the log must not end the daemon: lines go to standard error until the file takes them again. */
class LogFile {
  readonly #path: string
  readonly #standardError = pino.destination({ fd: 2, sync: true })
  #stream: ReturnType<typeof openRolling> | undefined
  #retryAtMs = 0

  constructor(path: string) {
    this.#path = path
    this.#open()
  }

  write(line: string): void {
    if (!this.#stream && performance.now() >= this.#retryAtMs) this.#open()
    const stream = this.#stream ?? this.#standardError
    stream.write(line)
  }

  close(): Promise<void> {
    const stream = this.#stream
    if (!stream) return Promise.resolve()
    return new Promise((resolve) => {
      // pino does not keep the process alive for its worker, so this timer does: the last lines are the ones that
      // matter. A worker that hangs (its disk gone) must not hold up a stop for ever.
      const patience = setTimeout(resolve, closeTimeoutMs)
      stream.once('close', () => {
        clearTimeout(patience)
        resolve()
      })
      stream.end()
    })
  }

  #open(): void {
    const stream = openRolling(this.#path)
    stream.on('error', (error: Error) => {
      if (this.#stream !== stream) return
      this.#stream = undefined
      this.#retryAtMs = performance.now() + reopenAfterMs
      this.#standardError.write(`${this.#path}: the log goes to standard error meanwhile: ${error.message}\n`)
    })
    this.#stream = stream
  }
}

function openRolling(file: string) {
  return pino.transport({
    target: 'pino-roll',
    options: { file, extension: '.log', size: '10m', limit: { count: 8 }, mkdir: true },
  })
}

export const silentLog: Logger = {
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
  with: () => silentLog,
}
