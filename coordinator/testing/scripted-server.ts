/** An agent or provider whose answers a test writes, on a real channel to a real coordinator. */
import { dialChannel } from '#shared/channel/dial.ts'
import type { Message } from '#shared/channel/message.ts'
import type { Channel } from '#shared/channel/port.ts'
import { systemClock } from '#shared/clock.ts'
import { errorDocument } from '#shared/errors/hotsite-error.ts'
import type { ServerId, VaultId } from '#shared/ids.ts'
import { silentLog } from '#shared/log.ts'
import type { CommandHandlers, CommandKind } from '#shared/messages/commands.ts'
import type { ReportKind, ReportOf } from '#shared/messages/reports.ts'
import type { ServerKeys } from '#shared/trust/keys.ts'

export interface Enrolled {
  readonly vaultId: VaultId
  readonly vaultPublicKey: Uint8Array
  readonly serverId: ServerId
  readonly membership: Uint8Array
  readonly keys: ServerKeys
}

/** A missing handler is a command the test did not expect. */
export type Script = Partial<CommandHandlers<CommandKind>>

export interface Dialled {
  readonly port: number
  readonly certificatePem: string
}

interface Given {
  readonly commandId: string
  readonly kind: string
  readonly request: unknown
}

export class ScriptedServer {
  readonly enrolled: Enrolled
  readonly script: Script
  /** Every command that arrived, repeats included. */
  readonly received: Given[] = []
  /** Commands that were carried out: a repeat of one is answered from memory, as real agents do. */
  readonly #results = new Map<string, { ok: boolean; json: Buffer }>()
  readonly carriedOut: Given[] = []
  answerTwice = false
  /** Kinds that are carried out and whose first answer is kept back until `release`; a repeat is answered at once. */
  readonly hold = new Set<string>()
  readonly #held: (() => void)[] = []
  #channel: Channel | undefined
  #reportSeq = 0
  readonly #states = new Map<string, { kind: ReportKind; report: unknown }>()
  #stop = new AbortController()
  #keeping = new AbortController()

  constructor(enrolled: Enrolled, script: Script) {
    this.enrolled = enrolled
    this.script = script
  }

  get connected(): boolean {
    return this.#channel !== undefined
  }

  async connect({ port, certificatePem }: Dialled): Promise<void> {
    this.#stop = new AbortController()
    const channel = await dialChannel({
      host: '127.0.0.1',
      port,
      pinnedCertificatePem: certificatePem,
      self: this.enrolled,
      vaultPublicKey: this.enrolled.vaultPublicKey,
      clock: systemClock,
      log: silentLog,
      signal: this.#stop.signal,
    })
    this.#channel = channel
    void this.#serve(channel)
    for (const { kind, report } of this.#states.values()) this.#send(kind, report)
  }

  async disconnect(): Promise<void> {
    this.#keeping.abort()
    const channel = this.#channel
    this.#channel = undefined
    channel?.close()
    await channel?.closed
    this.#stop.abort()
  }

  /** Connects again whenever the channel is gone, until `disconnect`. */
  async keepConnected(dialled: () => Dialled | undefined): Promise<void> {
    this.#keeping = new AbortController()
    const { signal } = this.#keeping
    while (!signal.aborted) {
      const where = this.#channel ? undefined : dialled()
      // Refused while the coordinator is down: that is what the next round is for.
      if (where) await this.connect(where).catch(() => {})
      await systemClock.sleep(20, signal).catch(() => {})
    }
  }

  /** Kept and sent again after every reconnect, as real agents do. */
  report<Kind extends ReportKind>(kind: Kind, key: string, report: ReportOf<Kind>): void {
    this.#states.set(`${kind}/${key}`, { kind, report })
    this.#send(kind, report)
  }

  get holding(): number {
    return this.#held.length
  }

  /** Answers what was held, late; more is held only if asked again. */
  release(): void {
    this.hold.clear()
    for (const go of this.#held.splice(0)) go()
  }

  kinds(): string[] {
    return this.carriedOut.map(({ kind }) => kind)
  }

  #send(kind: ReportKind, report: unknown): void {
    const body = { reportSeq: ++this.#reportSeq, kind, json: Buffer.from(JSON.stringify(report)) }
    this.#channel?.send({ kind: 'report', body }).catch(() => {})
  }

  async #serve(channel: Channel): Promise<void> {
    for await (const message of channel.messages())
      if (message.kind === 'command') void this.#answer(channel, message)
    if (this.#channel === channel) this.#channel = undefined
  }

  async #answer(channel: Channel, { body }: Extract<Message, { kind: 'command' }>): Promise<void> {
    const { commandId, kind } = body
    const request: unknown = JSON.parse(Buffer.from(body.json).toString())
    this.received.push({ commandId, kind, request })
    const known = this.#results.get(commandId)
    const result = known ?? (await this.#carryOut({ commandId, kind, request }))
    if (!known && this.hold.has(kind)) await new Promise<void>((resolve) => this.#held.push(resolve))
    for (let times = this.answerTwice ? 2 : 1; times > 0; times -= 1)
      await channel.send({ kind: 'commandResult', body: { commandId, ...result } }).catch(() => {})
  }

  async #carryOut(given: Given): Promise<{ ok: boolean; json: Buffer }> {
    this.carriedOut.push(given)
    const handler = (this.script as Record<string, ((request: unknown) => Promise<unknown>) | undefined>)[
      given.kind
    ]
    let result: { ok: boolean; json: Buffer }
    try {
      if (!handler) throw new Error(`the test has no script for ${given.kind}`)
      result = { ok: true, json: Buffer.from(JSON.stringify(await handler(given.request))) }
    } catch (error) {
      result = { ok: false, json: Buffer.from(JSON.stringify(errorDocument(error))) }
    }
    this.#results.set(given.commandId, result)
    return result
  }
}
