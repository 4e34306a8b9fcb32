/**
 * Whoever reaches a port can be refused there as often as they like. Each kind of refusal is told a few times a minute for
 * each address; the rest is counted, and told in one sentence when the minute is over.
 */
import type { Clock } from '../clock.ts'
import type { ChannelLimits } from './limits.ts'
import type { ChannelEvent } from './listen.ts'

export interface RefusalsOptions {
  readonly limits: Pick<ChannelLimits, 'refusalsToldPerMinute' | 'maxTrackedRefusals'>
  readonly clock: Clock
  readonly tell: (event: ChannelEvent) => void
}

export interface Refusals extends Disposable {
  note(event: ChannelEvent): void
}

interface Window {
  told: number
  leftOut: number
  last: ChannelEvent
  readonly done: AbortController
}

const windowMs = 60_000

export function refusals({ limits, clock, tell }: RefusalsOptions): Refusals {
  const windows = new Map<string, Window>()

  function close(key: string, window: Window): void {
    if (windows.get(key) !== window) return
    windows.delete(key)
    window.done.abort()
    const { leftOut, last } = window
    if (leftOut > 0)
      tell({
        ...last,
        message: `${last.message}; so ${leftOut} more times within a minute from this address`,
      })
  }

  function open(key: string, event: ChannelEvent): Window {
    const [oldest] = windows
    // A storm from very many addresses: the oldest count is told early rather than all of them kept.
    if (oldest && windows.size >= limits.maxTrackedRefusals) close(...oldest)
    const window: Window = { told: 0, leftOut: 0, last: event, done: new AbortController() }
    windows.set(key, window)
    clock.sleep(windowMs, window.done.signal).then(
      () => close(key, window),
      () => undefined,
    )
    return window
  }

  return {
    note(event) {
      const key = `${event.code} ${addressOf(event.remote)}`
      const window = windows.get(key) ?? open(key, event)
      window.last = event
      if (window.told < limits.refusalsToldPerMinute) {
        window.told += 1
        tell(event)
      } else window.leftOut += 1
    },
    [Symbol.dispose]() {
      for (const [key, window] of [...windows]) close(key, window)
    },
  }
}

/** Without the port, which every connection has anew. */
function addressOf(remote: string): string {
  return remote.slice(0, remote.lastIndexOf(':'))
}
