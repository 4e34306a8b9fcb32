import { errorDocument, HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { VmId } from '#shared/ids.ts'
import { KeyedLocks } from '#shared/keyed-locks.ts'
import type { CommandRequest, ResyncCause } from '#shared/messages/commands.ts'
import type { ReplicationPolicy } from '#shared/messages/policy.ts'
import { limits } from '../limits.ts'
import type { SourceRecord } from '../state/agent-state.ts'
import { captureLoop } from './capture-loop.ts'
import { copyNow } from './copy.ts'
import { sendLoop } from './send-loop.ts'
import { Source, type SourceDeps } from './source.ts'
import { verifyAtSource } from './verify.ts'

interface Running {
  readonly source: Source
  readonly controller: AbortController
  readonly done: Promise<void>
}

/** The VMs this host replicates: what the coordinator orders, and what goes on by itself after a restart (I12). */
export class Sources implements AsyncDisposable {
  readonly #deps: SourceDeps
  readonly #running = new Map<VmId, Running>()
  readonly #locks = new KeyedLocks<VmId>()

  constructor(deps: SourceDeps) {
    this.#deps = deps
  }

  /** Takes up what state.db says, without the coordinator. */
  async resumeAll(): Promise<void> {
    const { state, engine, log, raise } = this.#deps
    const records = state.sources()
    for (const known of await engine.states()) {
      if (!records.some(({ vmId }) => vmId === known.vmId)) await engine.forget(known.vmId)
    }
    for (const record of records) {
      const { vmId, fabricVmId, epoch } = record
      try {
        await engine.add({ vmId, fabricVmId, epoch }, 'buffer-lost')
        await this.#run(record)
      } catch (error) {
        // The other VMs of this host must not stay unprotected because of one.
        const { code, message } = errorDocument(error)
        log.error('a VM cannot be taken up again', { vmId, error })
        raise({ severity: 'critical', code, message: `VM ${vmId} is not replicated: ${message}`, vmId })
      }
    }
  }

  start(request: CommandRequest<'replication.start'>): Promise<void> {
    return this.#locks.run(request.vmId, async () => {
      const { cause, ...order } = request
      this.#ensureNotFenced(order.vmId, order.epoch)
      const known = this.#running.get(order.vmId)?.source
      if (known && known.record.epoch > order.epoch) {
        throw stale(order.vmId, order.epoch, known.record.epoch)
      }
      const sameRun = known?.record.epoch === order.epoch && known.record.fabricVmId === order.fabricVmId
      if (known && sameRun) return await this.#renew(known, order, cause)
      await this.#end(order.vmId)
      const { vmId, fabricVmId, epoch } = order
      const totals = { changedBytes: 0, sentBytes: 0, cycles: 0 }
      const record: SourceRecord = {
        ...order,
        paused: false,
        seenOff: false,
        lastCycle: null,
        totals,
        resync: null,
        heldPoints: [],
        catchUp: null,
        lastAppPointMs: null,
        writes: known ? known.record.writes : { recent: [], days: [] },
      }
      // The order first: a crash between the two leaves a buffer that is behind, which resumeAll() brings up.
      this.#deps.state.saveSource(record)
      await this.#deps.engine.add({ vmId, fabricVmId, epoch }, cause)
      await this.#run(record)
    })
  }

  renewTicket(request: CommandRequest<'replication.renewTicket'>): Promise<void> {
    return this.#locks.run(request.vmId, async () => {
      const source = this.#get(request.vmId)
      const { epoch, ticket, target } = request
      if (source.record.epoch !== epoch) throw stale(request.vmId, epoch, source.record.epoch)
      const moved = JSON.stringify(target) !== JSON.stringify(source.record.target)
      source.update({ ticket, target })
      // The target checks the ticket when a replica is opened: a transfer that runs is not disturbed.
      if (moved || !source.peerConnected) source.interrupt('the ticket was renewed')
    })
  }

  /** Ends the channels to targets that were removed from the vault by now. */
  dropRevoked(): void {
    this.#deps.links.dropRevoked()
  }

  /** undefined: this host does not replicate the VM. */
  epochOf(vmId: VmId): number | undefined {
    return this.#running.get(vmId)?.source.record.epoch
  }

  setPolicy(vmId: VmId, policy: ReplicationPolicy): boolean {
    const running = this.#running.get(vmId)
    running?.source.update({ policy })
    return running !== undefined
  }

  async setPaused(vmId: VmId, paused: boolean): Promise<void> {
    const source = this.#get(vmId)
    if (!paused && source.record.seenOff) source.update({ seenOff: false })
    if (source.record.paused === paused) return
    source.update({ paused })
    if (paused) {
      source.failRequests(new HotsiteError('replication-paused', `replication of VM ${vmId} was paused`))
    }
    source.interrupt(paused ? 'paused' : 'resumed')
  }

  async resync(vmId: VmId, cause: ResyncCause): Promise<void> {
    const source = this.#get(vmId)
    await this.#deps.engine.requireSync(vmId, cause)
    await source.refresh()
  }

  /** A person's word: what waits for its window, its start time or for this begins now. Throws `resync-not-waiting`. */
  async approveResync(vmId: VmId): Promise<void> {
    const source = this.#get(vmId)
    await source.refresh()
    source.pendingSync.clear()
  }

  async verify(vmId: VmId, percent: number) {
    return verifyAtSource(this.#get(vmId), percent)
  }

  async copy(vmId: VmId, signal: AbortSignal) {
    return copyNow(this.#get(vmId), signal)
  }

  /** The VM is off here, and runs on elsewhere from the point this returns. */
  async finalCopy(vmId: VmId, signal: AbortSignal) {
    const source = this.#get(vmId)
    const copied = await copyNow(source, signal)
    source.update({ seenOff: true })
    return copied
  }

  /** Ordered by the coordinator. Persisted before it returns; also for a VM this host does not replicate (any more) (I5). */
  fence(vmId: VmId, epoch: number): void {
    const running = this.#running.get(vmId)
    if (running) running.source.fenceByOrder(epoch)
    else this.#deps.state.fence(vmId, epoch)
  }

  /** For good: the order is forgotten first, so that a crash after it cannot start sending again. */
  stop(vmId: VmId): Promise<void> {
    return this.#locks.run(vmId, async () => {
      this.#deps.state.removeSource(vmId)
      await this.#end(vmId)
      await this.#deps.engine.forget(vmId)
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const why = new HotsiteError('replication-stopped', 'the agent stops')
    for (const { source, controller } of this.#running.values()) {
      source.stop(why)
      controller.abort(why)
    }
    await Promise.all([...this.#running.values()].map(({ done }) => done))
    this.#running.clear()
    await this.#deps.links[Symbol.asyncDispose]()
  }

  async #renew(
    source: Source,
    order: Omit<CommandRequest<'replication.start'>, 'cause'>,
    cause: ResyncCause,
  ): Promise<void> {
    const replaced = source.record.target.serverId !== order.target.serverId
    const moved = JSON.stringify(order.target) !== JSON.stringify(source.record.target)
    if (replaced) await this.#deps.engine.requireSync(order.vmId, cause)
    // A repeat of the order must not hold a later synchronization until the start time of the first.
    const notBeforeMs = source.engineState?.needsSync ? order.notBeforeMs : null
    source.update({ ...order, notBeforeMs, seenOff: false })
    if (moved || !source.peerConnected) source.interrupt('the order was renewed')
    if (replaced) await source.refresh()
  }

  async #run(record: SourceRecord): Promise<void> {
    const { log, clock } = this.#deps
    const source = new Source(record, this.#deps)
    const state = await source.refresh()
    if (state.needsSync === null) source.flow.load(await this.#deps.engine.pendingDeltas(record.vmId))
    const controller = new AbortController()
    const { signal } = controller
    const loop = async (name: string, run: (source: Source, signal: AbortSignal) => Promise<void>) => {
      while (!signal.aborted) {
        try {
          await run(source, signal)
        } catch (error) {
          if (signal.aborted) return
          // Nothing expected ends here; whatever it was, the VM must not stay unprotected because of it.
          log.error('a loop of a VM failed', { vmId: record.vmId, loop: name, error })
          source.failed(this.#deps.state.named(error), 'critical')
          await clock.sleep(limits.retryLastMs, signal).catch(() => {})
        }
      }
    }
    const done = Promise.all([loop('capture', captureLoop), loop('send', sendLoop)]).then(() => {})
    this.#running.set(record.vmId, { source, controller, done })
  }

  async #end(vmId: VmId): Promise<void> {
    const running = this.#running.get(vmId)
    if (!running) return
    running.source.stop(new HotsiteError('replication-stopped', `replication of VM ${vmId} was stopped`))
    running.controller.abort(new Error('replication was stopped'))
    await running.done
    this.#running.delete(vmId)
  }

  #get(vmId: VmId): Source {
    const running = this.#running.get(vmId)
    if (!running) throw new HotsiteError('vm-not-replicated', `VM ${vmId} is not replicated from this host`)
    return running.source
  }

  #ensureNotFenced(vmId: VmId, epoch: number): void {
    const fencedBelow = this.#deps.state.fencedBelow(vmId)
    if (epoch < fencedBelow) throw stale(vmId, epoch, fencedBelow)
  }
}

function stale(vmId: VmId, epoch: number, held: number): HotsiteError {
  return new HotsiteError('epoch-stale', `VM ${vmId} is at epoch ${held} here; epoch ${epoch} is over`, {
    details: { epoch: held },
  })
}
