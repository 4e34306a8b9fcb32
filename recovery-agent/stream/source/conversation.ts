import type { Message } from '#shared/channel/message.ts'
import type { Channel } from '#shared/channel/port.ts'
import type { Clock } from '#shared/clock.ts'
import { errorFromDocument, HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { VmId } from '#shared/ids.ts'
import { Wakeup } from '#shared/wakeup.ts'
import { limits } from '../../limits.ts'

export type ReplyKind = 'replicaOpened' | 'deltaAccepted' | 'pointAck' | 'treeNodes'
type Reply<Kind extends ReplyKind> = Extract<Message, { readonly kind: Kind }>

type RepairRequest = Extract<Message, { readonly kind: 'repairRequest' }>

interface Pending {
  readonly matches: (message: Message) => boolean
  readonly resolve: (message: Message) => void
}

/**
 * One VM's exchange with its target over a shared channel, from OpenReplica until the first refusal or the end of the
 * channel. It then never recovers: the next attempt opens a new one and learns from the target where to go on.
 */
export class Conversation {
  readonly vmId: VmId
  readonly #peer: string
  readonly #sendOnChannel: Channel['send']
  readonly #clock: Clock
  readonly #ended = new AbortController()
  readonly #credited = new Wakeup()
  #pending: readonly Pending[] = []
  #opened = false
  #takesBackfills = false
  #lastRequestId = 0
  #windowBytes = 0
  #availableBytes = 0
  #slowMs = 0
  #onRepairRequest: ((message: RepairRequest) => Promise<void>) | undefined

  constructor(options: {
    readonly vmId: VmId
    /** Name of the target, for messages. */
    readonly peer: string
    readonly clock: Clock
    readonly send: Channel['send']
  }) {
    this.#peer = options.peer
    this.vmId = options.vmId
    this.#clock = options.clock
    this.#sendOnChannel = options.send
  }

  /** Aborted, with the reason, once nothing more can come of this conversation. */
  get signal(): AbortSignal {
    return this.#ended.signal
  }

  /** What the target last asked to be added to the time between two copy cycles. */
  get slowMs(): number {
    return this.#slowMs
  }

  /** The target can put older points below newer ones. */
  get takesBackfills(): boolean {
    return this.#takesBackfills
  }

  /** Who answers when the target asks for blocks it has lost; it never rejects. */
  answerRepairs(answer: (message: RepairRequest) => Promise<void>): void {
    this.#onRepairRequest = answer
  }

  fail(reason: Error): void {
    this.#ended.abort(reason)
  }

  /** What the target said. Before ReplicaOpened only an answer to OpenReplica counts: the rest belongs to an earlier attempt. */
  deliver(message: Message): void {
    if (message.kind === 'replicaRefusal') {
      const { code, message: text, epoch, seq, diskIds } = message.body
      if (!this.#opened && seq !== 0) return
      const said = `the target ${this.#peer} refuses: ${text}`
      const refused = errorFromDocument({ code, message: said, details: { epoch, seq, diskIds } })
      this.fail(refused)
      return
    }
    if (message.kind === 'replicaOpened') {
      this.#opened = true
      this.#takesBackfills = message.body.takesBackfills
      this.#windowBytes = message.body.creditBytes
      this.#availableBytes = message.body.creditBytes
    }
    if (!this.#opened) return
    if (message.kind === 'repairRequest') {
      void this.#onRepairRequest?.(message)
      return
    }
    if (message.kind === 'blocksDurable') {
      this.#availableBytes = Math.min(this.#windowBytes, this.#availableBytes + message.body.creditBytes)
      this.#credited.notify()
      return
    }
    // A sealed point has consumed all of its payload, also what no sync had granted again: without this, deltas
    // smaller than the distance between two syncs use up the window for good.
    // The same for what came before a delta that is accepted: one that gave way to it is put away.
    if (message.kind === 'pointAck' || message.kind === 'deltaAccepted') {
      if (message.kind === 'pointAck') this.#slowMs = message.body.slowMs
      this.#availableBytes = this.#windowBytes
      this.#credited.notify()
    }
    const answered = this.#pending.find(({ matches }) => matches(message))
    answered?.resolve(message)
  }

  nextRequestId(): number {
    this.#lastRequestId += 1
    return this.#lastRequestId
  }

  /** As Channel.send. */
  async send(message: Message, onWritten?: () => void): Promise<void> {
    this.signal.throwIfAborted()
    await this.#sendOnChannel(message, onWritten)
  }

  /** Sends and waits for the first reply of one of `kinds` that `matches`. */
  async request<Kind extends ReplyKind>(
    message: Message,
    reply: {
      readonly kinds: readonly Kind[]
      readonly matches: (message: Reply<Kind>) => boolean
    },
    signal: AbortSignal,
  ): Promise<Reply<Kind>> {
    const answered = Promise.withResolvers<Message>()
    const isReply = (candidate: Message): candidate is Reply<Kind> =>
      reply.kinds.some((kind) => kind === candidate.kind)
    const pending: Pending = {
      matches: (candidate) => isReply(candidate) && reply.matches(candidate),
      resolve: answered.resolve,
    }
    const done = new AbortController()
    const stop = AbortSignal.any([signal, this.signal, done.signal])
    this.#pending = [...this.#pending, pending]
    try {
      const [received] = await Promise.all([
        Promise.race([answered.promise, this.#timeout(message.kind, stop)]),
        this.send(message),
      ])
      return received as Reply<Kind>
    } finally {
      this.#pending = this.#pending.filter((other) => other !== pending)
      done.abort(new Error('answered'))
    }
  }

  /**
   * Waits until `bytes` of payload fit the window; a batch larger than the window goes alone. `signal` must end with
   * this conversation.
   */
  async takeCredit(bytes: number, signal: AbortSignal): Promise<void> {
    while (this.#availableBytes < bytes && this.#availableBytes < this.#windowBytes) {
      await this.#credited.next(signal)
    }
    signal.throwIfAborted()
    this.#availableBytes -= bytes
  }

  async #timeout(kind: string, stop: AbortSignal): Promise<never> {
    await this.#clock.sleep(limits.replyTimeoutMs, stop)
    throw new HotsiteError('stream-timeout', `the target did not answer ${kind} of VM ${this.vmId} in time`)
  }
}
