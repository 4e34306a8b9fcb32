/**
 * Messages on a WebSocket, past ws for everything that is not a control frame. Both ways one thing is avoided, memory
 * that is used once: the collector is told of each piece of it, and runs over the whole heap every 64 MiB.
 *
 *   received  Node hands over decrypted bytes in pieces of 16 KiB, each in memory of its own, unless the socket reads into
 *             a buffer of ours. Node has that only for sockets it dials (`onread` of net.connect), so the symbols behind
 *             it are used; where they are missing, the pieces are taken as they come.
 *   sent      several buffers written at once are joined before they are encrypted, so each is written alone.
 */
import type { Socket } from 'node:net'
import { WebSocket } from 'ws'
import { assert } from '../assert.ts'
import { HotsiteError } from '../errors/hotsite-error.ts'
import type { SealedMessage } from './envelope.ts'
import { FrameReader, frameHeader } from './frames.ts'

/** What Node decrypts at a time. */
const readBytes = 64 * 1024

export interface MessageHandlers {
  readonly onMessage: (fragments: readonly Buffer[], isBinary: boolean) => void
  /** What came is no message; nothing more will be read. */
  readonly onBroken: (error: HotsiteError) => void
}

export interface MessageWire {
  /** From now on; call before the event ends in which the connection was made. */
  receive(handlers: MessageHandlers, maxMessageBytes: number): void
  /** The caller must not change the payload until `onSent`. */
  send(sealed: SealedMessage, onSent: () => void): void
}

export interface MessageWireOptions {
  readonly socket: WebSocket
  /** The TLS socket below. */
  readonly wire: Socket
  readonly role: 'client' | 'server'
  /** Memory for a large payload; undefined: none is left, take some anywhere. */
  readonly payloadMemory?: ((sizeBytes: number) => Buffer | undefined) | undefined
}

/** Below this a payload is not worth a place of its own. */
const smallBytes = 64 * 1024

export function messageWire({ socket, wire, role, payloadMemory }: MessageWireOptions): MessageWire {
  const controlFrames = receiverOf(socket)
  let handlers: MessageHandlers | undefined
  let maxBytes = 0
  let broken = false
  const reader = new FrameReader({
    masked: role === 'server',
    maxMessageBytes: () => maxBytes,
    // Parts of a header live on in the message, which a place for payload would not outlive.
    allocate: (sizeBytes, isPayload) =>
      (isPayload && sizeBytes > smallBytes ? payloadMemory?.(sizeBytes) : undefined) ??
      Buffer.allocUnsafeSlow(sizeBytes),
    onMessage: (fragments, isBinary) => handlers?.onMessage(fragments, isBinary),
    onControl: (frame) => controlFrames.write(frame),
  })
  const push = (chunk: Buffer) => {
    if (broken) return
    try {
      reader.push(chunk)
    } catch (error) {
      broken = true
      handlers?.onBroken(
        error instanceof HotsiteError
          ? error
          : new HotsiteError('internal', 'reading a frame failed', { cause: error }),
      )
    }
  }
  wire.removeAllListeners('data')
  wire.on('data', push)
  // Before ws, which would read what a paused socket still holds as frames of its own.
  wire.prependListener('close', () => {
    for (let rest: unknown = wire.read(); Buffer.isBuffer(rest); rest = wire.read()) push(rest)
  })
  readIntoOneBuffer(wire, push)
  Object.assign(wire, { _writev: null })
  const masked = role === 'client'
  return {
    receive(next, maxMessageBytes) {
      handlers = next
      maxBytes = maxMessageBytes
    },
    send({ head, tail, tag }, onSent) {
      if (socket.readyState !== WebSocket.OPEN) return
      const header = (payloadBytes: number, first: boolean, last: boolean) =>
        frameHeader({ first, last, masked, payloadBytes })
      if (!tail) {
        wire.write(Buffer.concat([header(head.length + tag.length, true, true), head, tag]), onSent)
        return
      }
      wire.write(Buffer.concat([header(head.length, true, false), head, header(tail.length, false, false)]))
      wire.write(tail)
      wire.write(Buffer.concat([header(tag.length, false, true), tag]), onSent)
    },
  }
}

/** ws's own reader. Not public, so its absence is an error here rather than a close that is never answered. */
function receiverOf(socket: WebSocket): { write(frame: Buffer): unknown } {
  const { _receiver: receiver } = socket as unknown as { _receiver?: { write?: unknown } }
  assert(typeof receiver?.write === 'function', 'ws keeps its receiver where 8.x kept it')
  return receiver as { write(frame: Buffer): unknown }
}

function readIntoOneBuffer(wire: Socket, push: (chunk: Buffer) => void): void {
  const symbols = Object.getOwnPropertySymbols(wire)
  const named = (name: string) => symbols.find((symbol) => symbol.description === name)
  const [buffer, callback] = [named('kBuffer'), named('kBufferCb')]
  const { _handle: handle } = wire as unknown as { _handle?: { useUserBuffer?: (memory: Buffer) => void } }
  if (!buffer || !callback || typeof handle?.useUserBuffer !== 'function') return
  // What is there already comes first.
  for (let early: unknown = wire.read(); Buffer.isBuffer(early); early = wire.read()) push(early)
  const memory = Buffer.allocUnsafeSlow(readBytes)
  Object.assign(wire, {
    [buffer]: memory,
    [callback]: (bytes: number) => {
      push(memory.subarray(0, bytes))
      return true
    },
  })
  handle.useUserBuffer(memory)
}
