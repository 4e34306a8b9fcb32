/** Connections that have not proved who they are: so many at most, and each for so long at most (slow-loris). */
import type { Socket } from 'node:net'
import type { Clock } from '../clock.ts'
import type { ChannelLimits } from './limits.ts'
import type { ChannelEvent } from './listen.ts'

export interface StrangersOptions {
  readonly limits: Pick<ChannelLimits, 'maxUnauthenticatedConnections' | 'handshakeTimeoutMs'>
  readonly clock: Clock
  readonly onRefused: (event: ChannelEvent) => void
}

export interface Strangers {
  /** A new TCP connection; it may be destroyed at once. */
  admit(socket: Socket): void
  /** The TLS socket above an admitted connection has completed the handshake. */
  proved(socket: Socket): void
  dismissAll(): void
  readonly count: number
}

/** TCP and TLS objects of one connection have nothing else in common that is public. */
const keyOf = (socket: Socket) => `${socket.remoteAddress} ${socket.remotePort}`

export function strangers({ limits, clock, onRefused }: StrangersOptions): Strangers {
  const waiting = new Map<string, { readonly socket: Socket; readonly done: AbortController }>()
  /** One event for a whole storm; the next one when it has passed. */
  let storm = false

  function forget(key: string): void {
    waiting.get(key)?.done.abort()
    waiting.delete(key)
    if (waiting.size <= limits.maxUnauthenticatedConnections / 2) storm = false
  }

  function refuseStorm(remote: string): void {
    if (storm) return
    storm = true
    const message = `more than ${limits.maxUnauthenticatedConnections} connections have proved nothing yet`
    onRefused({ code: 'channel-too-many', message, remote })
  }

  return {
    admit(socket) {
      const key = keyOf(socket)
      const remote = `${socket.remoteAddress}:${socket.remotePort}`
      if (waiting.size >= limits.maxUnauthenticatedConnections) {
        socket.destroy()
        refuseStorm(remote)
        return
      }
      const done = new AbortController()
      waiting.set(key, { socket, done })
      socket.once('close', () => forget(key))
      clock.sleep(limits.handshakeTimeoutMs, done.signal).then(
        () => {
          forget(key)
          socket.destroy()
          const message = `no handshake within ${limits.handshakeTimeoutMs} ms`
          onRefused({ code: 'channel-handshake-timeout', message, remote })
        },
        () => undefined,
      )
    },
    proved: (socket) => forget(keyOf(socket)),
    dismissAll() {
      for (const { socket } of waiting.values()) socket.destroy()
    },
    get count() {
      return waiting.size
    },
  }
}
