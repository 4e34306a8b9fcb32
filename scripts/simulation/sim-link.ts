/**
 * The line between hosts in place of TLS and ws: frames in order, encoded by the real codec, with delay and a rate.
 * It may be cut at any frame, with or without the two ends learning of it at the same time; be silent for hours; and
 * alter a frame, whose MAC then closes the channel (DESIGN §4).
 */
import { decodeMessage, encodeMessage } from '#shared/channel/codec.ts'
import { channelLimits } from '#shared/channel/limits.ts'
import type { Message } from '#shared/channel/message.ts'
import type { Channel, ChannelClosed, ChannelCounters, Peer } from '#shared/channel/port.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { ServerId } from '#shared/ids.ts'
import { Wakeup } from '#shared/wakeup.ts'
import type { Scheduler } from './scheduler.ts'

const SILENT_MS = channelLimits.heartbeatIntervalMs * (channelLimits.maxSilentIntervals + 1)
/** A sender waits while more than this much time of the line is queued. */
const QUEUE_MS = 40
const FRAME_OVERHEAD_BYTES = 64

export interface LinkEnd {
  readonly peer: Peer
  /** Undefined: nobody listens there now. */
  readonly accept: ((channel: Channel) => void) | undefined
}

export class SimLink {
  readonly #scheduler: Scheduler
  readonly #connections = new Set<Connection>()
  #isSilent = false
  latencyMs = 2
  bytesPerMs = 100_000
  /** Payload and headers that left an end. */
  sentBytes = 0

  constructor(scheduler: Scheduler) {
    this.#scheduler = scheduler
  }

  get isSilent(): boolean {
    return this.#isSilent
  }

  /** As long as it is silent nothing passes, and nobody is told. */
  setSilent(silent: boolean): void {
    this.#isSilent = silent
    for (const connection of this.#connections) connection.silence(silent)
  }

  async dial(from: Peer, to: () => LinkEnd, isAlive: () => boolean): Promise<Channel> {
    await this.#scheduler.sleep(2 * this.latencyMs)
    if (this.#isSilent) {
      await this.#scheduler.sleep(channelLimits.handshakeTimeoutMs)
      throw new HotsiteError('channel-handshake-timeout', 'the peer did not answer')
    }
    const { peer, accept } = to()
    if (!accept) throw new HotsiteError('channel-unreachable', 'nobody listens there')
    if (!isAlive()) return await new Promise<never>(() => {})
    const connection = new Connection(this.#scheduler, this, { dialer: from, listener: peer })
    this.#connections.add(connection)
    void connection.over.then(() => this.#connections.delete(connection))
    accept(connection.listenerEnd)
    return connection.dialerEnd
  }

  /** What is on its way is lost; both ends learn of it soon. */
  cut(): number {
    return this.#each((connection) => connection.cut())
  }

  /** The dialling end learns of it at once and comes again, while the other still hears what was sent before. */
  cutUnnoticed(): number {
    return this.#each((connection) => connection.cutUnnoticed())
  }

  /** The same after so many more frames. */
  cutAfter(frames: number): number {
    return this.#each((connection) => {
      connection.framesLeft = frames
    })
  }

  alterNextFrame(): number {
    return this.#each((connection) => {
      connection.altersNext = true
    })
  }

  /** A process ended: its sockets with it. `silently`: the power of the whole machine went. */
  endOf(server: ServerId, silently: boolean): void {
    for (const connection of this.#connections) connection.endOf(server, silently)
  }

  #each(act: (connection: Connection) => void): number {
    const open = [...this.#connections]
    for (const connection of open) act(connection)
    return open.length
  }
}

class Connection {
  readonly dialerEnd: End
  readonly listenerEnd: End
  readonly over: Promise<unknown>
  readonly #scheduler: Scheduler
  readonly #link: SimLink
  #silentFrames: (() => void)[] = []
  #silentSinceMs: number | undefined
  altersNext = false
  framesLeft = Number.POSITIVE_INFINITY

  constructor(scheduler: Scheduler, link: SimLink, peers: { dialer: Peer; listener: Peer }) {
    this.#scheduler = scheduler
    this.#link = link
    this.dialerEnd = new End(peers.listener, (message) =>
      this.#send(this.dialerEnd, this.listenerEnd, message),
    )
    this.listenerEnd = new End(peers.dialer, (message) =>
      this.#send(this.listenerEnd, this.dialerEnd, message),
    )
    this.over = Promise.all([this.dialerEnd.closed, this.listenerEnd.closed])
    void this.dialerEnd.closed.then((why) => this.#tell(this.listenerEnd, why))
    void this.listenerEnd.closed.then((why) => this.#tell(this.dialerEnd, why))
  }

  silence(silent: boolean): void {
    if (!silent) {
      this.#silentSinceMs = undefined
      const held = this.#silentFrames
      this.#silentFrames = []
      for (const deliver of held) deliver()
      return
    }
    if (this.#silentSinceMs !== undefined) return
    const since = this.#scheduler.nowMs
    this.#silentSinceMs = since
    for (const [end, ms] of [
      [this.dialerEnd, SILENT_MS],
      [this.listenerEnd, SILENT_MS * 0.9],
    ] as const)
      this.#scheduler.after(ms, () => {
        if (this.#silentSinceMs === since) end.end({ code: 'channel-silent', message: 'no sign of life' })
      })
  }

  cut(): void {
    const why = { code: 'channel-lost', message: 'the connection broke' }
    this.dialerEnd.isCut = true
    this.listenerEnd.isCut = true
    this.dialerEnd.end(why)
    this.#scheduler.after(this.#link.latencyMs, () => this.listenerEnd.end(why))
  }

  cutUnnoticed(): void {
    this.listenerEnd.isCut = true
    this.dialerEnd.end({ code: 'channel-lost', message: 'the connection broke' })
  }

  endOf(server: ServerId, silently: boolean): void {
    const [own, other] =
      this.dialerEnd.peer.serverId === server
        ? [this.listenerEnd, this.dialerEnd]
        : [this.dialerEnd, this.listenerEnd]
    if (own.peer.serverId === server || other.peer.serverId !== server) return
    // The kernel of a killed process still sends what it was given; a machine without power does not.
    own.isCut = silently
    other.isCut = true
    const why = { code: 'channel-lost', message: 'the peer is gone' }
    this.#scheduler.after(silently ? SILENT_MS : this.#link.latencyMs, () => other.end(why))
    own.kill()
  }

  /** A socket that was closed at one end reports it at the other, unless the line is silent: then time does. */
  #tell(end: End, why: ChannelClosed): void {
    const isHeard = this.#silentSinceMs === undefined && !end.isCut
    this.#scheduler.after(isHeard ? this.#link.latencyMs : SILENT_MS, () => end.end(why))
  }

  async #send(from: End, to: End, message: Message): Promise<void> {
    const header = encodeMessage(message)
    const tail = message.tail === undefined ? undefined : Buffer.from(message.tail)
    const bytes = header.length + (tail?.length ?? 0) + FRAME_OVERHEAD_BYTES
    this.#link.sentBytes += bytes
    const now = this.#scheduler.nowMs
    from.busyUntilMs = Math.max(now, from.busyUntilMs) + bytes / this.#link.bytesPerMs
    if (--this.framesLeft <= 0) {
      this.framesLeft = Number.POSITIVE_INFINITY
      this.cut()
      return
    }
    const isAltered = this.altersNext
    this.altersNext = false
    const deliver = () => {
      if (from.isCut) return
      if (this.#silentSinceMs !== undefined) this.#silentFrames.push(deliver)
      else if (isAltered) to.end({ code: 'channel-altered', message: 'a frame was altered on its way' })
      else to.receive(decodeMessage(header, tail))
    }
    this.#scheduler.at(from.busyUntilMs + this.#link.latencyMs, deliver)
    const waitMs = from.busyUntilMs - now - QUEUE_MS
    if (waitMs > 0) await this.#scheduler.sleep(waitMs)
  }
}

class End implements Channel {
  readonly peer: Peer
  readonly closed: Promise<ChannelClosed>
  readonly #transmit: (message: Message) => Promise<void>
  readonly #inbox: Message[] = []
  readonly #arrived = new Wakeup()
  readonly #settleClosed: (why: ChannelClosed) => void
  readonly #counters = { bytesSent: 0, bytesReceived: 0, framesSent: 0, framesReceived: 0 }
  #why: ChannelClosed | undefined
  #isKilled = false
  busyUntilMs = 0
  /** What it sends arrives nowhere. */
  isCut = false

  constructor(peer: Peer, transmit: (message: Message) => Promise<void>) {
    this.peer = peer
    this.#transmit = transmit
    const { promise, resolve } = Promise.withResolvers<ChannelClosed>()
    this.closed = promise
    this.#settleClosed = resolve
  }

  get counters(): ChannelCounters {
    return this.#counters
  }

  async send(message: Message): Promise<void> {
    if (this.#isKilled) return await new Promise<never>(() => {})
    if (this.#why) throw new HotsiteError('channel-closed', this.#why.message)
    this.#counters.framesSent += 1
    this.#counters.bytesSent += message.tail?.length ?? 0
    await this.#transmit(message)
    if (this.#why) throw new HotsiteError('channel-closed', 'the connection broke')
  }

  receive(message: Message): void {
    if (this.#why || this.#isKilled) return
    this.#counters.framesReceived += 1
    this.#inbox.push(message)
    this.#arrived.notify()
  }

  async *messages(): AsyncIterable<Message> {
    const never = new AbortController().signal
    for (;;) {
      const message = this.#inbox.shift()
      if (message && !this.#isKilled) yield message
      else if (this.#why && !this.#isKilled) return
      else await this.#arrived.next(never)
    }
  }

  end(why: ChannelClosed): void {
    if (this.#why || this.#isKilled) return
    this.#why = why
    this.#inbox.length = 0
    this.#settleClosed(why)
    this.#arrived.notify()
  }

  /** Its process is gone: whoever waits here waits for ever. */
  kill(): void {
    this.#isKilled = true
  }

  close(reason: ChannelClosed = { code: 'channel-closed', message: 'closed' }): void {
    this.end(reason)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close()
  }
}
