import type { Message } from '../channel/message.ts'
import type { Channel, ChannelClosed, Peer } from '../channel/port.ts'
import { Wakeup } from '../wakeup.ts'

const HIGH_WATER_MESSAGES = 64
const never = new AbortController().signal

/** Two ends of one channel in memory: ordered, copied like over a wire, with back-pressure, and cut by `close`. */
export function memoryChannelPair(peers: { readonly left: Peer; readonly right: Peer }): [Channel, Channel] {
  const left = new MemoryChannel(peers.right)
  const right = new MemoryChannel(peers.left)
  left.join(right)
  right.join(left)
  return [left, right]
}

class MemoryChannel implements Channel {
  readonly peer: Peer
  readonly closed: Promise<ChannelClosed>
  readonly #inbox: Message[] = []
  readonly #arrived = new Wakeup()
  readonly #drained = new Wakeup()
  readonly #settleClosed: (reason: ChannelClosed) => void
  readonly #counters = { bytesSent: 0, bytesReceived: 0, framesSent: 0, framesReceived: 0 }
  #other: MemoryChannel | undefined
  #reason: ChannelClosed | undefined

  constructor(peer: Peer) {
    this.peer = peer
    const { promise, resolve } = Promise.withResolvers<ChannelClosed>()
    this.closed = promise
    this.#settleClosed = resolve
  }

  join(other: MemoryChannel): void {
    this.#other = other
  }

  get counters() {
    return this.#counters
  }

  async send(message: Message): Promise<void> {
    const other = this.#other
    if (this.#reason || !other) throw closedError(this.#reason)
    const tail = message.tail === undefined ? {} : { tail: Buffer.from(message.tail) }
    const copy = { kind: message.kind, body: structuredClone(message.body), ...tail } as Message
    this.#counters.framesSent += 1
    this.#counters.bytesSent += message.tail?.length ?? 0
    other.#inbox.push(copy)
    other.#arrived.notify()
    while (other.#inbox.length > HIGH_WATER_MESSAGES && !this.#reason) await other.#drained.next(never)
    if (this.#reason) throw closedError(this.#reason)
  }

  async *messages(): AsyncIterable<Message> {
    for (;;) {
      const message = this.#inbox.shift()
      if (message) {
        this.#counters.framesReceived += 1
        this.#counters.bytesReceived += message.tail?.length ?? 0
        this.#drained.notify()
        yield message
      } else if (this.#reason) return
      else await this.#arrived.next(never)
    }
  }

  close(reason: ChannelClosed = { code: 'channel-closed', message: 'closed' }): void {
    for (const end of [this, this.#other]) {
      if (!end || end.#reason) continue
      end.#reason = reason
      end.#inbox.length = 0
      end.#settleClosed(reason)
      end.#arrived.notify()
      end.#drained.notify()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close()
  }
}

function closedError(reason: ChannelClosed | undefined): Error {
  return new Error(`channel closed: ${reason?.code ?? 'not joined'}`)
}
