/** Runs a handshake machine on a WebSocket. */
import type { Socket } from 'node:net'
import { WebSocket } from 'ws'
import { assert } from '../assert.ts'
import { HotsiteError } from '../errors/hotsite-error.ts'
import { opener, sealer } from './envelope.ts'
import { type Established, type HandshakeMachine, refusalFrame } from './handshake.ts'
import { exporterBytes, exporterLabel } from './key-schedule.ts'
import type { ChannelLimits } from './limits.ts'
import { noMac } from './mac.ts'
import type { MessageWire } from './message-wire.ts'
import { closedByPeer, closedWithErrorCode, socketError } from './socket-channel.ts'

export const channelPath = '/channel'

export interface DriveHandshakeOptions {
  readonly socket: WebSocket
  readonly messages: MessageWire
  readonly machine: HandshakeMachine
  /** The client's first frame; the server waits for it. */
  readonly first?: Uint8Array
  readonly limits: ChannelLimits
  /** Called within the event that completed the handshake, so that no frame behind it is missed. */
  readonly onEstablished: (established: Established) => void
  /** The handshake is over and the socket is closing. Called once, never after onEstablished. */
  readonly onFailed: (error: HotsiteError) => void
}

export function driveHandshake(options: DriveHandshakeOptions): void {
  const { socket, messages, machine, limits } = options
  const frameLimits = { maxHeaderBytes: limits.maxHandshakeFrameBytes, maxTailBytes: 0 }
  const outgoing = sealer(noMac, frameLimits, 0)
  const incoming = opener(noMac, frameLimits, 0)

  const sendFrame = (header: Uint8Array) => messages.send(outgoing.seal(header, undefined), () => undefined)

  let over = false
  function stop(): void {
    over = true
    socket.off('error', onError)
    socket.off('close', onClose)
  }

  function fail(error: HotsiteError): void {
    stop()
    socket.on('error', () => undefined)
    if (socket.readyState === WebSocket.OPEN) {
      if (error.details['refusedByPeer'] !== true) sendFrame(refusalFrame(error))
      socket.close(closedWithErrorCode, error.code)
    }
    options.onFailed(error)
  }

  function onMessage(fragments: readonly Buffer[], isBinary: boolean): void {
    if (over) return
    try {
      if (!isBinary) throw new HotsiteError('channel-malformed', 'received a text message')
      const step = machine.receive(incoming.open(fragments).header)
      if (step.send) sendFrame(step.send)
      if (!step.established) return
      stop()
      options.onEstablished(step.established)
    } catch (error) {
      fail(
        error instanceof HotsiteError
          ? error
          : new HotsiteError('channel-malformed', `handshake failed: ${String(error)}`, { cause: error }),
      )
    }
  }
  function onError(error: Error): void {
    fail(socketError(error))
  }
  function onClose(code: number, text: Buffer): void {
    const why = closedByPeer(code, text.toString())
    fail(new HotsiteError('channel-refused', `the connection ended during the handshake: ${why.message}`))
  }

  messages.receive({ onMessage, onBroken: (error) => over || fail(error) }, limits.maxHandshakeFrameBytes)
  socket.on('error', onError)
  socket.on('close', onClose)
  if (options.first) sendFrame(options.first)
}

/** Ties the handshake to this TLS connection (RFC 5705, RFC 8446 §7.5). */
export function tlsExporter(wire: Socket): Buffer {
  assert('exportKeyingMaterial' in wire, 'channels run on TLS')
  const tls = wire as Socket & {
    exportKeyingMaterial(length: number, label: string, context: Buffer): Buffer
  }
  return tls.exportKeyingMaterial(exporterBytes, exporterLabel, Buffer.alloc(0))
}
