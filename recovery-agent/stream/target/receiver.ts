/**
 * The target's side of one VM on one channel.
 *
 *   closed ──OpenReplica──▶ open ──DeltaBegin──▶ receiving ──DeltaEnd, sealed──▶ open
 *      ▲                                            │
 *      └──────────── any refusal ◀──────────────────┘
 *
 * A refusal ends the source's attempt: whatever of it is still on its way is dropped without another answer, until
 * OpenReplica starts the next one. Messages are handled one at a time under the VM's lock, which the commands that
 * fence, adopt or remove the replica take too: when those return, nothing older is being written (I5).
 */

import type { DeltaHeader, RepairWanted } from '#recovery-agent/replica/port.ts'
import type { RemoteReplicaStore } from '#recovery-agent/replica/remote.ts'
import { assertNever } from '#shared/assert.ts'
import type { Message } from '#shared/channel/message.ts'
import type { Channel } from '#shared/channel/port.ts'
import type { Clock } from '#shared/clock.ts'
import type { CrashPoint } from '#shared/crash-point.ts'
import { errorDocument, HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { ServerId, VmId } from '#shared/ids.ts'
import type { KeyedLocks } from '#shared/keyed-locks.ts'
import type { Logger } from '#shared/log.ts'
import { Wakeup } from '#shared/wakeup.ts'
import { limits } from '../../limits.ts'
import { checkManifest } from './check-manifest.ts'
import { checkOpen, staleEpoch } from './check-open.ts'
import {
  type DeltaEndRequest,
  parseBackfills,
  parseDeltaBegin,
  parseDeltaEnd,
  parseOpenReplica,
  parseTreeQuery,
  type TreeQueryRequest,
} from './parse.ts'
import { Receiving } from './receiving.ts'
import { type RepairAnswer, RepairQuestions } from './repair-questions.ts'

export interface ReceiverContext {
  readonly self: { readonly serverId: ServerId; readonly vaultPublicKey: Uint8Array }
  readonly store: RemoteReplicaStore
  readonly locks: KeyedLocks<VmId>
  readonly clock: Clock
  readonly log: Logger
  readonly crashPoint: CrashPoint
  /** This receiver speaks for the VM from now on; another one lets go. Called under the VM's lock. */
  readonly claim: (vmId: VmId, receiver: Receiver) => Promise<void>
  readonly onSealed: (vmId: VmId) => void
  /** No older points are expected below some point any more: what held it is over. */
  readonly onBackfilled?: (vmId: VmId) => void
  /** A source is there for this replica. */
  readonly onOpened?: (vmId: VmId) => void
  /** Why the newest point cannot be what the source goes on from; undefined: it can. */
  readonly unhealable?: (vmId: VmId, seq: number) => Promise<HotsiteError | undefined>
  /** A hash tree here contradicts itself. */
  readonly onTreeDamaged?: (vmId: VmId) => void
  /** What the source was asked to add to each of its cycles; 0: nothing. */
  readonly onPace?: (vmId: VmId, slowMs: number) => void
  readonly onDiverged: (vmId: VmId, seq: number, diskIds: readonly string[]) => void
}

type State =
  | { readonly kind: 'closed' }
  | { readonly kind: 'open'; readonly epoch: number }
  | { readonly kind: 'receiving'; readonly epoch: number; readonly delta: Receiving }

/** What a source may ask of a target. */
export type SourceMessage = Extract<
  Message,
  { readonly kind: 'openReplica' | 'deltaBegin' | 'blocks' | 'deltaEnd' | 'treeQuery' | 'backfills' }
>

/** What a source answers a target. */
export type SourceAnswer = Extract<Message, { readonly kind: 'repairBlocks' }>

export class Receiver {
  readonly #vmId: VmId
  readonly #channel: Channel
  readonly #context: ReceiverContext
  readonly #log: Logger
  readonly #queue: SourceMessage[] = []
  readonly #arrived = new Wakeup()
  readonly #room = new Wakeup()
  readonly #ending = new AbortController()
  #state: State = { kind: 'closed' }
  readonly #questions: RepairQuestions
  /** The sync that is under way, if any; never rejects. */
  #syncing: Promise<void> = Promise.resolve()

  constructor(vmId: VmId, channel: Channel, context: ReceiverContext) {
    this.#vmId = vmId
    this.#channel = channel
    this.#context = context
    this.#log = context.log.with({ vmId, peer: channel.peer.name })
    this.#questions = new RepairQuestions(context.clock, (message) => this.#answer(message))
  }

  get isReceiving(): boolean {
    return this.#state.kind === 'receiving'
  }

  /** Asks the source for blocks; undefined when it is not there, or does not answer in time. */
  async askRepair(wanted: RepairWanted): Promise<RepairAnswer | undefined> {
    if (this.#state.kind === 'closed') return undefined
    const { epoch } = this.#state
    return await this.#questions.ask({ vmId: this.#vmId, epoch, wanted }, this.#ending.signal)
  }

  /** At once, past the queue: it is no part of what is being received. */
  answered({ body, tail }: SourceAnswer): void {
    this.#questions.answered(body, tail)
  }

  /** Queues a message; while the queue is full the caller, and so the socket, waits. */
  async offer(message: SourceMessage): Promise<void> {
    this.#queue.push(message)
    this.#arrived.notify()
    while (this.#queue.length >= limits.receiveQueueMessages && !this.#ending.signal.aborted) {
      await this.#room.next(this.#ending.signal).catch(() => {})
    }
  }

  /** Until `end`. Never rejects: what goes wrong is answered to the source. */
  async run(): Promise<void> {
    const { signal } = this.#ending
    const { clock, locks } = this.#context
    while (!signal.aborted) {
      const message = this.#queue.shift()
      if (message) {
        await locks.run(this.#vmId, () => this.#handle(message))
        this.#room.notify()
        continue
      }
      try {
        if (this.#state.kind !== 'receiving' || !this.#state.delta.unsynced) await this.#arrived.next(signal)
        else {
          await this.#arrived.nextOrAfter(clock, limits.durableIdleMs, signal)
          if (this.#queue.length === 0) await locks.run(this.#vmId, () => this.#syncWhenIdle())
        }
      } catch (error) {
        if (!signal.aborted) throw error
      }
    }
    await locks.run(this.#vmId, () => this.letGo())
  }

  end(): void {
    this.#ending.abort(new Error('the channel ended'))
  }

  /** Under the VM's lock: refuses what is going on, if anything is. */
  async interrupt(error: HotsiteError): Promise<void> {
    if (this.#state.kind !== 'closed') await this.#refuse(error)
  }

  /** Under the VM's lock: closes the files, keeping what came for the next attempt. */
  async letGo(): Promise<void> {
    const state = this.#state
    this.#state = { kind: 'closed' }
    if (state.kind !== 'receiving') return
    try {
      await state.delta.close()
    } catch (error) {
      this.#log.warn('a delta could not be put away', { seq: state.delta.header.seq, error })
    }
  }

  async #handle(message: SourceMessage): Promise<void> {
    try {
      if (message.kind === 'openReplica') await this.#open(message)
      // The rest of an attempt that was refused.
      else if (this.#state.kind === 'closed') return
      else if (message.kind === 'backfills')
        await this.#keepBackfills(parseBackfills(message.body, this.#state.epoch))
      else if (message.kind === 'deltaBegin') await this.#begin(message, this.#state.epoch)
      else if (this.#state.kind === 'receiving') await this.#continue(message, this.#state.delta)
      else throw new HotsiteError('stream-out-of-order', `${message.kind} without a delta`)
    } catch (error) {
      await this.#refuse(error)
    }
  }

  async #open(message: Extract<SourceMessage, { kind: 'openReplica' }>): Promise<void> {
    await this.letGo()
    const { store, self, clock, claim } = this.#context
    const request = parseOpenReplica(message.body)
    const { epoch } = request
    const vmId = this.#vmId
    const replica = await store.get(vmId)
    const source = this.#channel.peer
    const { newestSeq } = checkOpen({ vmId, request, replica, source, self, nowMs: clock.now() })
    await claim(vmId, this)
    const takesBackfills = await this.#keepBackfills(request.owedTops)
    this.#state = { kind: 'open', epoch }
    const { creditBytes } = limits
    this.#answer({
      kind: 'replicaOpened',
      body: { vmId, epoch, newestSeq, creditBytes, takesBackfills },
    })
    this.#context.onOpened?.(vmId)
  }

  /** What is no longer owed may be pruned. Answers whether more may be promised. */
  async #keepBackfills(owedTops: readonly number[]): Promise<boolean> {
    const takesBackfills = await this.#context.store.keepBackfills(this.#vmId, owedTops)
    this.#context.onBackfilled?.(this.#vmId)
    return takesBackfills
  }

  async #begin(message: Extract<SourceMessage, { kind: 'deltaBegin' }>, epoch: number): Promise<void> {
    const { store } = this.#context
    const vmId = this.#vmId
    const header = parseDeltaBegin(message.body)
    await this.letGo()
    this.#state = { kind: 'open', epoch }
    const replica = await store.get(vmId)
    if (!replica) throw new HotsiteError('replica-unknown', `there is no replica of VM ${vmId} here`)
    if (replica.epoch !== epoch) throw staleEpoch(vmId, epoch, replica.epoch)
    if (header.epoch !== epoch) {
      throw new HotsiteError(
        'stream-out-of-order',
        `a delta of epoch ${header.epoch} on one of epoch ${epoch}`,
      )
    }
    if (await this.#isHere(header, replica.newestSeq)) {
      // The point exists, its acknowledgement was lost (I4).
      this.#answer({ kind: 'pointAck', body: { vmId, epoch, seq: header.seq, slowMs: 0 } })
      return
    }
    if (header.kind !== 'backfill' && header.baseSeq !== replica.newestSeq) {
      throw new HotsiteError(
        'base-unknown',
        `delta ${header.seq} of VM ${vmId} stands on point ${header.baseSeq}; the newest here is ${replica.newestSeq}`,
      )
    }
    const delta = new Receiving(header, await store.begin(header), this.#context.clock)
    this.#state = { kind: 'receiving', epoch, delta }
    this.#answer({
      kind: 'deltaAccepted',
      body: { vmId, seq: header.seq, resume: delta.progress.map((disk) => ({ ...disk })) },
    })
  }

  /** A point of this epoch, and so those before it; of those that come later than newer ones the very point. */
  async #isHere({ kind, epoch, seq }: DeltaHeader, newestSeq: number): Promise<boolean> {
    if (seq > newestSeq) return false
    const points = await this.#context.store.points(this.#vmId)
    return points.some((point) => point.epoch === epoch && (kind !== 'backfill' || point.seq === seq))
  }

  async #continue(
    message: Exclude<SourceMessage, { kind: 'openReplica' | 'deltaBegin' | 'backfills' }>,
    delta: Receiving,
  ): Promise<void> {
    const { epoch, seq } = delta.header
    if (message.body.epoch !== epoch || message.body.seq !== seq) {
      throw new HotsiteError(
        'stream-out-of-order',
        `${message.kind} of point ${message.body.seq} while receiving ${seq}`,
      )
    }
    switch (message.kind) {
      case 'blocks':
        await delta.accept(message.body, message.tail)
        if (delta.dueForSync) await this.#syncBehind(delta)
        return
      case 'treeQuery':
        await this.#answerTree(parseTreeQuery(message.body, delta.header))
        return
      case 'deltaEnd':
        await this.#seal(delta, parseDeltaEnd(message.body))
        return
      default:
        assertNever(message)
    }
  }

  async #answerTree({ diskId, level, first, count, requestId }: TreeQueryRequest): Promise<void> {
    const vmId = this.#vmId
    const nodes = await this.#context.store.treeNodes({ vmId, diskId, level, first, count })
    this.#answer({
      kind: 'treeNodes',
      body: { vmId, diskId, requestId, first, count },
      tail: Buffer.from(nodes),
    })
  }

  async #seal(delta: Receiving, end: DeltaEndRequest): Promise<void> {
    const { crashPoint, store, onSealed, onDiverged } = this.#context
    const vmId = this.#vmId
    const { epoch, seq, kind } = delta.header
    const manifest = checkManifest(end.manifest, delta.header, this.#channel.peer)
    crashPoint('target:before-seal')
    const outcome = await delta.seal(manifest, end.batches)
    this.#state = { kind: 'open', epoch }
    if (outcome.kind === 'diverged') {
      // A delta on a base that differs is worth nothing; a synchronization goes on from what it has.
      if (kind === 'delta' || kind === 'union') await store.discardPartial(vmId)
      onDiverged(vmId, seq, outcome.diskIds)
      throw new HotsiteError(
        'delta-diverged',
        `point ${seq} of VM ${vmId}: the hash of ${outcome.diskIds.join(', ')} is not the one signed`,
        { details: { seq, diskIds: outcome.diskIds } },
      )
    }
    crashPoint('target:sealed-before-ack')
    this.#log.info('point sealed', { epoch, seq })
    // The source first: pruning runs under the same lock.
    this.#answer({ kind: 'pointAck', body: { vmId, epoch, seq, slowMs: await this.#pace() } })
    onSealed(vmId)
    const isNewest = kind === 'delta' || kind === 'union'
    const damaged = isNewest ? await this.#context.unhealable?.(vmId, seq) : undefined
    if (damaged) throw damaged
  }

  /** The point stands: it is acknowledged, whatever becomes of the question how fast the next one may come. */
  async #pace(): Promise<number> {
    const { onPace, store } = this.#context
    try {
      const slowMs = await store.slowDownMs(this.#vmId)
      onPace?.(this.#vmId, slowMs)
      return slowMs
    } catch (error) {
      this.#log.warn('the pace of merges is not known', { error })
      return 0
    }
  }

  /**
   * Begins to make durable what came and lets more come meanwhile, one sync at a time: the disk is never waited for
   * with nothing else to do.
   */
  async #syncBehind(delta: Receiving): Promise<void> {
    await this.#syncing
    this.#syncing = this.#sync(delta).catch((error: unknown) => {
      // Under the lock, so not awaited by what holds it.
      void this.#context.locks.run(this.#vmId, async () => {
        if (this.#state.kind === 'receiving' && this.#state.delta === delta) await this.#refuse(error)
      })
    })
  }

  async #syncWhenIdle(): Promise<void> {
    if (this.#state.kind !== 'receiving' || !this.#state.delta.unsynced) return
    try {
      await this.#sync(this.#state.delta)
    } catch (error) {
      await this.#refuse(error)
    }
  }

  async #sync(delta: Receiving): Promise<void> {
    const { disks, creditBytes } = await delta.sync()
    this.#answer({
      kind: 'blocksDurable',
      body: {
        vmId: this.#vmId,
        seq: delta.header.seq,
        disks: disks.map((disk) => ({ ...disk })),
        creditBytes,
      },
    })
  }

  async #refuse(error: unknown): Promise<void> {
    const { code, message, details } = errorDocument(error)
    const state = this.#state
    const seq = state.kind === 'receiving' ? state.delta.header.seq : Number(details['seq'] ?? 0)
    const epoch = Number(details['epoch'] ?? (state.kind === 'closed' ? 0 : state.epoch))
    this.#log.warn('refused to the source', { code, seq, error })
    if (code === 'tree-damaged') this.#context.onTreeDamaged?.(this.#vmId)
    await this.letGo()
    const diskIds = Array.isArray(details['diskIds']) ? details['diskIds'].map(String) : []
    this.#answer({ kind: 'replicaRefusal', body: { vmId: this.#vmId, code, message, epoch, seq, diskIds } })
  }

  /** Not awaited: answers are small, and the channel that cannot take them any more ends this receiver anyway. */
  #answer(message: Message): void {
    this.#channel.send(message).catch(() => {})
  }
}
