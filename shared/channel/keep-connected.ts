/** Dials for ever: full-jitter exponential back-off, so that ten thousand agents do not return in one instant. */
import type { Clock } from '../clock.ts'
import { HotsiteError } from '../errors/hotsite-error.ts'
import type { Logger } from '../log.ts'
import type { Rng } from '../rng.ts'
import type { Channel } from './port.ts'

export interface Backoff {
  /** The first pause is below this; each failure doubles the bound. */
  readonly minMs: number
  readonly maxMs: number
}

export const defaultBackoff: Backoff = { minMs: 1_000, maxMs: 60_000 }

export interface ConnectionEvent {
  readonly kind: 'connected' | 'disconnected' | 'connect-failed'
  /** Why: code of shared/errors; `connected` for the good case. */
  readonly code: string
  readonly message: string
  /** Pause before the next attempt; 0 for `connected`. */
  readonly retryInMs: number
}

export interface KeepConnectedOptions {
  readonly dial: (signal: AbortSignal) => Promise<Channel>
  /** May run for as long as the channel; the next attempt waits for it. When it throws, the channel is closed. */
  readonly onChannel: (channel: Channel) => void | Promise<void>
  readonly clock: Clock
  readonly rng: Rng
  readonly log: Logger
  readonly signal: AbortSignal
  readonly backoff?: Backoff | undefined
  readonly onEvent?: ((event: ConnectionEvent) => void) | undefined
}

/** The pause before attempt `failures + 1`: uniform between nothing and a bound that doubles from min to max. */
export function backoffMs({ minMs, maxMs }: Backoff, failures: number, rng: Rng): number {
  const bound = Math.min(maxMs, minMs * 2 ** Math.min(failures, 30))
  return Math.round(rng.next() * bound)
}

/** Returns when the signal is aborted; never throws for a connection that fails. */
export async function keepConnected(options: KeepConnectedOptions): Promise<void> {
  const { clock, rng, log, signal, backoff = defaultBackoff } = options
  let failures = 0
  let lastCode = ''

  function report(event: ConnectionEvent): void {
    // The same failure again and again is one line; the events carry every one.
    if (event.code !== lastCode)
      log[event.kind === 'connected' ? 'info' : 'warn'](`channel ${event.kind}`, { ...event })
    lastCode = event.code
    options.onEvent?.(event)
  }

  while (!signal.aborted) {
    const startedMs = clock.monotonicMs()
    const end = await oneConnection(options, () =>
      report({ kind: 'connected', code: 'connected', message: 'connected', retryInMs: 0 }),
    )
    if (signal.aborted) return
    // Only a channel that held is a success: one that is refused right after the handshake must not be stormed.
    const held = end.kind === 'disconnected' && clock.monotonicMs() - startedMs >= backoff.maxMs
    failures = held ? 0 : failures + 1
    const retryInMs = backoffMs(backoff, failures - 1, rng)
    report({ ...end, retryInMs })
    await clock.sleep(retryInMs, signal).catch(() => undefined)
  }
}

type ConnectionEnd = Omit<ConnectionEvent, 'retryInMs'>

async function oneConnection(options: KeepConnectedOptions, onConnected: () => void): Promise<ConnectionEnd> {
  let channel: Channel
  try {
    channel = await options.dial(options.signal)
  } catch (error) {
    return { kind: 'connect-failed', ...described(error) }
  }
  const stop = () => channel.close()
  options.signal.addEventListener('abort', stop)
  try {
    onConnected()
    await options.onChannel(channel)
  } catch (error) {
    options.log.error('channel handler failed', { error })
    channel.close(described(error))
  } finally {
    // Also when the signal came while dialling: its listener was added too late to hear it.
    if (options.signal.aborted) channel.close()
  }
  const why = await channel.closed
  options.signal.removeEventListener('abort', stop)
  return { kind: 'disconnected', ...why }
}

function described(error: unknown): { code: string; message: string } {
  if (error instanceof HotsiteError) return { code: error.code, message: error.message }
  return { code: 'internal', message: error instanceof Error ? error.message : String(error) }
}
