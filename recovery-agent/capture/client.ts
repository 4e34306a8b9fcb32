/** The capture engine as the main thread sees it: every call crosses into the worker (worker.ts). */
import { once } from 'node:events'
import { type Transferable, Worker } from 'node:worker_threads'
import { BLOCK_BYTES } from '#shared/blocks/block.ts'
import { GROUP_CHILDREN } from '#shared/blocks/hash-tree.ts'
import { PayloadSlots, payloadMemory } from '#shared/blocks/payload-slots.ts'
import { errorFromDocument, HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { Logger } from '#shared/log.ts'
import { limits, workerMemory } from '../limits.ts'
import type { CaptureEngine, StoredBatch, SyncSession } from './port.ts'
import { type BudgetUser, SharedBudget } from './shared-budget.ts'
import type {
  CallArgument,
  CallResult,
  CaptureWorkerConfig,
  CaptureWorkerData,
  SyncDescription,
  WireBatch,
  WorkerCall,
  WorkerMessage,
} from './worker-protocol.ts'

/** As many as a few synchronizations read ahead; none that is free is ever touched. */
const PAYLOAD_SLOTS = 64

export interface CaptureWorker extends CaptureEngine {
  /** Resolves, with the reason, when the worker ends without having been asked to. */
  readonly failed: Promise<HotsiteError>
}

/** Resolves when the engine in the worker is ready. Throws what opening it threw. */
export async function startCaptureWorker(
  config: CaptureWorkerConfig,
  { log }: { readonly log: Logger },
): Promise<CaptureWorker> {
  const memory = payloadMemory(PAYLOAD_SLOTS)
  const workerData: CaptureWorkerData = { ...config, payloadMemory: memory }
  const worker = new Worker(new URL('./worker.ts', import.meta.url), {
    workerData,
    resourceLimits: workerMemory,
  })
  return connectCaptureWorker(worker, log, new PayloadSlots(memory))
}

export async function connectCaptureWorker(
  worker: Worker,
  log: Logger,
  slots: PayloadSlots,
): Promise<CaptureWorker> {
  const link = new WorkerLink(worker, log)
  await link.ready
  return engineOver(link, slots)
}

interface Waiting {
  readonly resolve: (value: unknown) => void
  readonly reject: (error: HotsiteError) => void
}

class WorkerLink {
  readonly ready: Promise<void>
  readonly failed: Promise<HotsiteError>
  readonly #worker: Worker
  readonly #log: Logger
  readonly #waiting = new Map<number, Waiting>()
  readonly #readiness = Promise.withResolvers<void>()
  readonly #failure = Promise.withResolvers<HotsiteError>()
  readonly #exited: Promise<unknown>
  #nextId = 1
  #ended: HotsiteError | undefined
  #closing = false

  constructor(worker: Worker, log: Logger) {
    this.#worker = worker
    this.#log = log
    this.ready = this.#readiness.promise
    this.failed = this.#failure.promise
    this.#exited = once(worker, 'exit').catch(() => {})
    worker.on('message', (message: WorkerMessage) => this.#receive(message))
    worker.on('error', (error) => this.#end(error))
    worker.on('exit', () => this.#end(undefined))
  }

  call<Call extends WorkerCall>(
    call: Call,
    argument: CallArgument<Call>,
    moved: Transferable[] = [],
  ): Promise<CallResult<Call>> {
    if (this.#ended) return Promise.reject(this.#ended)
    const { promise, resolve, reject } = Promise.withResolvers<unknown>()
    const id = this.#nextId++
    this.#waiting.set(id, { resolve, reject })
    this.#worker.postMessage({ id, call, argument }, moved)
    return promise as Promise<CallResult<Call>>
  }

  async close(): Promise<void> {
    if (this.#closing) return
    this.#closing = true
    if (!this.#ended) await this.call('close', null)
    await this.#exited
  }

  #receive(message: WorkerMessage): void {
    switch (message.kind) {
      case 'ready':
        this.#readiness.resolve()
        return
      case 'failed':
        this.#readiness.reject(errorFromDocument(message.error))
        return
      case 'log':
        this.#log[message.level](message.event, message.fields)
        return
      case 'result':
        this.#take(message.id)?.resolve(message.value)
        return
      case 'error':
        this.#take(message.id)?.reject(errorFromDocument(message.error))
        return
    }
  }

  #take(id: number): Waiting | undefined {
    const waiting = this.#waiting.get(id)
    this.#waiting.delete(id)
    return waiting
  }

  #end(cause: Error | undefined): void {
    if (this.#ended) return
    const why = cause?.message ?? (this.#closing ? 'the agent stops' : 'it ended by itself')
    const failure = new HotsiteError('capture-stopped', `the capture worker has ended: ${why}`, { cause })
    this.#ended = failure
    this.#readiness.reject(failure)
    for (const { reject } of this.#waiting.values()) reject(failure)
    this.#waiting.clear()
    if (!this.#closing) this.#failure.resolve(failure)
  }
}

function engineOver(link: WorkerLink, slots: PayloadSlots): CaptureWorker {
  const readAhead = new SharedBudget(limits.syncReadAheadBytes)
  return {
    failed: link.failed,
    add: (vm, cause) => link.call('add', { vm, cause }),
    requireSync: (vmId, cause) => link.call('requireSync', { vmId, cause }),
    forget: (vmId) => link.call('forget', { vmId }),
    states: () => link.call('states', null),
    state: (vmId) => link.call('state', { vmId }),
    capture: (vmId, options) => link.call('capture', { vmId, ...options }),
    verify: (vmId, { percent }) => link.call('verify', { vmId, percent }),
    nextDelta: (vmId, afterSeq, throughSeq) => link.call('nextDelta', { vmId, afterSeq, throughSeq }),
    pendingDeltas: (vmId) => link.call('pendingDeltas', { vmId }),
    readBatch: async (key) => asBatch(await link.call('readBatch', key), slots),
    readProved: async (vmId, request) => asBatch(await link.call('readProved', { vmId, request }), slots),
    acknowledge: (vmId, seq) => link.call('acknowledge', { vmId, seq }),
    owe: (vmId, range) => link.call('owe', { vmId, range }),
    owedDelta: (vmId, place) => link.call('owedDelta', { vmId, ...place }),
    openSync: async (vmId, { newestSeq }) =>
      sessionOver(link, await link.call('openSync', { vmId, newestSeq }), {
        slots,
        readAhead: readAhead.user(),
      }),
    exportSeed: (request) => link.call('exportSeed', request),
    usage: () => link.call('usage', null),
    [Symbol.asyncDispose]: () => link.close(),
  }
}

function sessionOver(
  link: WorkerLink,
  { session, ...description }: SyncDescription,
  { slots, readAhead }: { readonly slots: PayloadSlots; readonly readAhead: BudgetUser },
): SyncSession {
  return {
    ...description,
    differingGroups({ diskId, first, targetNodes }) {
      const nodes = own(targetNodes)
      return link.call('differingGroups', { session, diskId, first, targetNodes: nodes }, [nodes.buffer])
    },
    async differingBlocks({ targetLeaves, ...request }) {
      const leaves = own(targetLeaves)
      const argument = { session, ...request, targetLeaves: leaves }
      await readAhead.take(GROUP_CHILDREN * BLOCK_BYTES)
      const batches = await link.call('differingBlocks', argument, [leaves.buffer])
      const readBytes = batches.reduce((sum, batch) => sum + sizeOf(batch), 0)
      readAhead.release(GROUP_CHILDREN * BLOCK_BYTES - readBytes)
      return batches.map((batch) => releasing(asBatch(batch, slots), () => readAhead.release(sizeOf(batch))))
    },
    countDiffering({ targetLeaves, ...request }) {
      const leaves = own(targetLeaves)
      return link.call('countDiffering', { session, ...request, targetLeaves: leaves }, [leaves.buffer])
    },
    manifest: () => link.call('manifest', { session }),
    commit: () => link.call('commit', { session }),
    [Symbol.asyncDispose]() {
      readAhead.end()
      return link.call('closeSync', { session })
    },
  }
}

function sizeOf({ payload }: WireBatch): number {
  return 'slot' in payload ? payload.sizeBytes : payload.byteLength
}

function releasing(batch: StoredBatch, done: () => void): StoredBatch {
  const release = () => {
    batch.release?.()
    done()
  }
  return { ...batch, release }
}

/** A copy to give away: a view would take the whole frame it lies in along. */
function own(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytes)
}

function asBatch(batch: WireBatch, slots: PayloadSlots): StoredBatch {
  if ('slot' in batch.payload) {
    const payload = slots.accept(batch.payload)
    return { ...batch, payload, release: () => slots.release(payload) }
  }
  const { buffer, byteOffset, byteLength } = batch.payload
  return { ...batch, payload: Buffer.from(buffer, byteOffset, byteLength) }
}
