import type { Message } from '#shared/channel/message.ts'
import type { Channel, ChannelClosed } from '#shared/channel/port.ts'
import type { Clock } from '#shared/clock.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { VmId } from '#shared/ids.ts'
import type { Logger } from '#shared/log.ts'
import { Wakeup } from '#shared/wakeup.ts'
import { Turns } from '../turns.ts'
import { Conversation } from './conversation.ts'

/** The source's side of the one channel to a target agent, shared by all VMs that replicate to it. */
export class PeerLink {
  readonly turns: Turns
  readonly #clock: Clock
  readonly #log: Logger
  readonly #conversations = new Map<VmId, Conversation>()
  readonly #connected = new Wakeup()
  #channel: Channel | undefined

  constructor(options: { readonly clock: Clock; readonly log: Logger }) {
    this.#clock = options.clock
    this.turns = new Turns(() => this.#clock.now())
    this.#log = options.log
  }

  get connected(): boolean {
    return this.#channel !== undefined
  }

  /** Resolves when the link goes up or down. */
  changed(signal: AbortSignal): Promise<void> {
    return this.#connected.next(signal)
  }

  /** Ends the connection there is; the next one is dialled as after any other end. */
  drop(why: ChannelClosed): void {
    this.#channel?.close(why)
  }

  /** One connection, until it ends. */
  async serve(channel: Channel): Promise<void> {
    this.#channel = channel
    this.#connected.notify()
    try {
      for await (const message of channel.messages()) this.#deliver(message)
    } finally {
      if (this.#channel === channel) this.#channel = undefined
      const { code, message } = await channel.closed
      const reason = new HotsiteError(
        'stream-interrupted',
        `the connection to the target ended: ${message}`,
        {
          details: { code },
        },
      )
      for (const conversation of this.#conversations.values()) conversation.fail(reason)
      this.#conversations.clear()
      this.#connected.notify()
    }
  }

  /** Waits for a connection. An earlier conversation of the same VM is over. */
  async converse(vmId: VmId, signal: AbortSignal): Promise<Conversation> {
    for (;;) {
      signal.throwIfAborted()
      const channel = this.#channel
      if (channel) {
        this.end(vmId)
        const conversation = new Conversation({
          vmId,
          peer: channel.peer.name,
          clock: this.#clock,
          send: (message, onWritten) => sendOn(channel, message, onWritten),
        })
        this.#conversations.set(vmId, conversation)
        return conversation
      }
      await this.#connected.next(signal)
    }
  }

  end(vmId: VmId): void {
    this.#conversations.get(vmId)?.fail(new HotsiteError('stream-interrupted', 'the transfer was ended here'))
    this.#conversations.delete(vmId)
  }

  #deliver(message: Message): void {
    const about = 'vmId' in message.body ? (message.body.vmId as VmId) : undefined
    const conversation = about === undefined ? undefined : this.#conversations.get(about)
    if (conversation) conversation.deliver(message)
    else this.#log.debug('message of the target for no transfer', { kind: message.kind, vmId: about })
  }
}

async function sendOn(channel: Channel, ...sent: Parameters<Channel['send']>): Promise<void> {
  try {
    await channel.send(...sent)
  } catch (error) {
    throw new HotsiteError('stream-interrupted', 'the connection to the target ended', { cause: error })
  }
}
