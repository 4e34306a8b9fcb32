/**
 * An established channel on a WebSocket: numbers, authenticates and sends; checks and delivers; keeps watch on the
 * peer. Anything wrong with a received frame closes the channel for good.
 */
import type { Socket } from 'node:net'
import type { WebSocket } from 'ws'
import type { Clock } from '../clock.ts'
import { errorFromDocument, HotsiteError } from '../errors/hotsite-error.ts'
import type { Logger } from '../log.ts'
import type { Rng } from '../rng.ts'
import { decodeMessage, encodeMessage } from './codec.ts'
import { maxFrameBytes, type Opener, opener, type Sealer, sealer } from './envelope.ts'
import { type Established, handshakeMessages } from './handshake.ts'
import { silenceCount } from './heartbeat.ts'
import { inbox } from './inbox.ts'
import { laneOf, sendLanes } from './lanes.ts'
import { type ChannelLimits, queuedMessageOverheadBytes } from './limits.ts'
import { gmac } from './mac.ts'
import type { Message } from './message.ts'
import type { MessageWire } from './message-wire.ts'
import type { Channel, ChannelClosed } from './port.ts'

/** WebSocket close codes of applications: 4000 to 4999 (RFC 6455 §7.4.2). The reason text is our error code. */
export const closedWithErrorCode = 4000
export const closedInOrderCode = 1000

export interface SocketChannelOptions {
  readonly socket: WebSocket
  readonly messages: MessageWire
  /** The TLS socket below, for counters. */
  readonly wire: Socket
  readonly role: 'client' | 'server'
  readonly established: Established
  readonly limits: ChannelLimits
  readonly clock: Clock
  readonly log: Logger
  /** Spreads the heartbeats of many channels that were made in one instant; absent: no spreading. */
  readonly rng?: Rng | undefined
  /** Asked at every heartbeat: why the peer is no longer welcome, if so (membership expired or revoked since). */
  readonly distrust?: (() => ChannelClosed | undefined) | undefined
}

export interface SocketChannel extends Channel {
  /** When the peer was last heard, on the injected clock: tells a second connection of a living server from a reconnect. */
  readonly lastReceivedMonotonicMs: number
}

interface QueuedMessage {
  readonly header: Uint8Array
  readonly tail: Buffer | undefined
  readonly onWritten: (() => void) | undefined
  readonly sizeBytes: number
}

interface ReceivedMessage {
  readonly message: Message
  readonly sizeBytes: number
}

export function socketChannel(options: SocketChannelOptions): SocketChannel {
  const { socket, messages, wire, limits, clock, log, established } = options
  const { seal, open } = sessionCipher(options)
  const lanes = sendLanes<QueuedMessage>()
  const silence = silenceCount(limits.maxSilentIntervals)
  const stopped = new AbortController()
  const closing = Promise.withResolvers<ChannelClosed>()
  const socketGone = Promise.withResolvers<void>()
  const gone = new AbortController()
  let room = Promise.withResolvers<void>()
  let roomAwaited = false
  let reason: ChannelClosed | undefined
  let paused = false
  let lastReceivedMonotonicMs = clock.monotonicMs()
  const counted = { framesSent: handshakeMessages, framesReceived: handshakeMessages }

  const received = inbox<ReceivedMessage>({
    highWaterBytes: limits.receiveHighWaterBytes,
    onFull() {
      paused = true
      socket.pause()
    },
    onRoom() {
      paused = false
      socket.resume()
    },
  })

  function end(why: ChannelClosed, how: 'flush' | 'drop'): void {
    if (reason) return
    reason = why
    stopped.abort()
    if (how === 'flush') for (let item = lanes.take(); item; item = lanes.take()) write(item)
    lanes.clear()
    if (roomAwaited) room.reject(closedError(why))
    // What came in before the distrust is not acted on after it.
    if (why.code.startsWith('membership-')) received.discard()
    received.end()
    // A paused socket would never see the peer's answer to the close.
    if (paused) socket.resume()
    const ordered = why.code === 'channel-closed'
    // Whoever must reconnect or clean up after an error does not wait for a peer that may never answer.
    if (!ordered) closing.resolve(why)
    socket.close(ordered ? closedInOrderCode : closedWithErrorCode, ordered ? '' : closeReason(why))
    void clock.sleep(limits.closeTimeoutMs, gone.signal).then(
      () => socket.terminate(),
      () => undefined,
    )
  }

  function fail(error: unknown): void {
    const known =
      error instanceof HotsiteError ? error : new HotsiteError('internal', String(error), { cause: error })
    log.warn('channel failed', { code: known.code, reason: known.message, peer: established.peer.serverId })
    end({ code: known.code, message: known.message }, 'drop')
  }

  function write({ header, tail, onWritten }: QueuedMessage): void {
    const sealed = seal.seal(header, tail)
    counted.framesSent += 1
    messages.send(sealed, () => {
      onWritten?.()
      pump()
    })
  }

  /** Hands queued messages to the socket while it takes them, and lets waiting senders go on at half the mark. */
  function pump(): void {
    if (reason) return
    while (socket.bufferedAmount < limits.sendHighWaterBytes) {
      // What is in the socket cannot be overtaken any more.
      const item = lanes.take(socket.bufferedAmount < limits.bulkInSocketBytes ? 'any' : 'control')
      if (!item) break
      write(item)
    }
    if (roomAwaited && lanes.bytes + socket.bufferedAmount <= limits.sendHighWaterBytes / 2) {
      roomAwaited = false
      room.resolve()
      room = Promise.withResolvers()
    }
  }

  function enqueue(message: Message, onWritten?: () => void): void {
    const header = encodeMessage(message)
    const tailBytes = message.tail?.length ?? 0
    if (header.length > limits.maxHeaderBytes || tailBytes > limits.maxTailBytes)
      throw new HotsiteError(
        'channel-oversize',
        `cannot send ${message.kind}: header ${header.length} of ${limits.maxHeaderBytes} bytes, ` +
          `payload ${tailBytes} of ${limits.maxTailBytes}`,
      )
    const sizeBytes = header.length + tailBytes + queuedMessageOverheadBytes
    lanes.push(laneOf(message.kind), { header, tail: message.tail, onWritten, sizeBytes })
    if (lanes.bytes > limits.maxQueuedBytes) {
      fail(
        new HotsiteError(
          'channel-queue-full',
          `${lanes.bytes} bytes are queued for ${established.peer.name}`,
        ),
      )
      return
    }
    pump()
  }

  function send(message: Message, onWritten?: () => void): Promise<void> {
    if (reason) return handled(Promise.reject(closedError(reason)))
    try {
      enqueue(message, onWritten)
    } catch (error) {
      // A sender that does not wait would never learn of it.
      log.error('message not sent', { kind: message.kind, error })
      return handled(Promise.reject(error))
    }
    if (reason) return handled(Promise.reject(closedError(reason)))
    if (lanes.bytes + socket.bufferedAmount < limits.sendHighWaterBytes) return Promise.resolve()
    roomAwaited = true
    return handled(room.promise)
  }

  function deliver(data: readonly Buffer[]): void {
    const sizeBytes = data.reduce((sum, piece) => sum + piece.length, queuedMessageOverheadBytes)
    const { header, tail } = open.open(data)
    const message = decodeMessage(header, tail)
    counted.framesReceived += 1
    lastReceivedMonotonicMs = clock.monotonicMs()
    switch (message.kind) {
      case 'ping':
        enqueue({ kind: 'pong', body: { sentAtMs: message.body.sentAtMs, answeredAtMs: clock.now() } })
        return
      case 'pong':
        return
      case 'hello':
      case 'proof':
      case 'refusal':
        throw new HotsiteError('channel-malformed', `received ${message.kind} after the handshake`)
      default:
        received.push({ message, sizeBytes })
    }
  }

  async function watchPeer(): Promise<void> {
    await clock.sleep(limits.heartbeatIntervalMs * (options.rng?.next() ?? 0), stopped.signal)
    while (!stopped.signal.aborted) {
      await clock.sleep(limits.heartbeatIntervalMs, stopped.signal)
      const unwelcome = options.distrust?.()
      if (unwelcome) return end(unwelcome, 'drop')
      if (silence.intervalPassed(paused)) {
        fail(new HotsiteError('channel-silent', `${established.peer.name} has stopped answering`))
        // The peer cannot answer a close either.
        return socket.terminate()
      }
      enqueue({ kind: 'ping', body: { sentAtMs: clock.now() } })
    }
  }

  messages.receive(
    {
      onMessage(fragments, isBinary) {
        silence.received()
        if (reason) return
        try {
          if (!isBinary) throw new HotsiteError('channel-malformed', 'received a text message')
          deliver(fragments)
        } catch (error) {
          fail(error)
        }
      },
      onBroken: fail,
    },
    maxFrameBytes(limits),
  )
  socket.on('error', (error) => fail(socketError(error)))
  socket.on('close', (code, text) => {
    end(closedByPeer(code, text.toString()), 'drop')
    socketGone.resolve()
    gone.abort()
    closing.resolve(reason ?? { code: 'channel-closed', message: 'closed' })
  })
  watchPeer().catch((error: unknown) => {
    if (!stopped.signal.aborted) fail(error)
  })

  const close = (why: ChannelClosed = { code: 'channel-closed', message: 'closed here' }): void =>
    end(why, 'flush')
  return {
    peer: established.peer,
    get counters() {
      return { bytesSent: wire.bytesWritten, bytesReceived: wire.bytesRead, ...counted }
    },
    get lastReceivedMonotonicMs() {
      return lastReceivedMonotonicMs
    },
    send,
    async *messages() {
      for await (const { message } of received.items()) yield message
    },
    closed: closing.promise,
    close,
    async [Symbol.asyncDispose]() {
      close()
      await socketGone.promise
    },
  }
}

function sessionCipher({ role, established, limits }: SocketChannelOptions): { seal: Sealer; open: Opener } {
  const upward = gmac(established.keys.clientToServer, 'client-to-server')
  const downward = gmac(established.keys.serverToClient, 'server-to-client')
  const [sending, receiving] = role === 'client' ? [upward, downward] : [downward, upward]
  return {
    seal: sealer(sending, limits, handshakeMessages),
    open: opener(receiving, limits, handshakeMessages),
  }
}

/** Control messages may be sent without awaiting: their rejection is then nobody's, and must not end the process. */
function handled(promise: Promise<void>): Promise<void> {
  promise.catch(() => undefined)
  return promise
}

function closedError(why: ChannelClosed): HotsiteError {
  return errorFromDocument({ code: why.code, message: `the channel is closed: ${why.message}` })
}

/** WebSocket allows 123 bytes of reason. */
function closeReason(why: ChannelClosed): string {
  return Buffer.from(`${why.code}: ${why.message}`)
    .subarray(0, 120)
    .toString('latin1')
    .replace(/[^ -~]/g, '?')
}

export function closedByPeer(code: number, text: string): ChannelClosed {
  if (code === closedInOrderCode || code === 1001 || code === 1005)
    return { code: 'channel-closed', message: 'closed by the other side' }
  if (code === closedWithErrorCode) {
    const wellKnown = passedOn.find((known) => text.startsWith(`${known}: `))
    return { code: wellKnown ?? 'channel-closed-by-peer', message: `closed by the other side: ${text}` }
  }
  return { code: 'channel-lost', message: `the connection broke (WebSocket code ${code})` }
}

/** Reasons that concern the receiver of the close, not its sender. */
const passedOn = ['membership-revoked', 'membership-expired', 'channel-replaced'] as const

/** What ws and the socket below report: limits of ours that ws enforces, breaches of its protocol, or a broken link. */
export function socketError(error: Error): HotsiteError {
  const code = 'code' in error ? String(error.code) : ''
  if (code === 'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH' || code === 'WS_ERR_TOO_MANY_BUFFERED_PARTS')
    return new HotsiteError('channel-oversize', 'received a message beyond the limit', { cause: error })
  if (code.startsWith('WS_ERR_'))
    return new HotsiteError('channel-malformed', `received what is no WebSocket: ${error.message}`, {
      cause: error,
    })
  return new HotsiteError('channel-lost', `the connection broke: ${error.message}`, { cause: error })
}
