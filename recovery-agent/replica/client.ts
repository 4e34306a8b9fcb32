import { Worker } from 'node:worker_threads'
import { PayloadSlots, payloadMemory } from '#shared/blocks/payload-slots.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { Logger } from '#shared/log.ts'
import { workerMemory } from '../limits.ts'
import type { DiskProgress } from './port.ts'
import {
  errorOf,
  type FromWorker,
  movable,
  type RemoteCall,
  type RemoteDeltaWriter,
  type RemoteReplicaStore,
  type RemoteRequest,
  revived,
  type StoredBlocks,
  storeMethods,
} from './remote.ts'

/** Blocks on their way to the worker, of all writers together: keeps the disk busy without holding much memory (I13). */
const QUEUE_BYTES = 16 << 20
/** The queue, and what the messages before it hold. */
const PAYLOAD_SLOTS = 32
/** What a batch of nothing but zero blocks counts. */
const MESSAGE_BYTES = 4096

interface Waiting {
  readonly resolve: (value: unknown) => void
  readonly reject: (error: Error) => void
}

export interface ReplicaWorker extends RemoteReplicaStore {
  /** Resolves, with the reason, when the worker ends without having been asked to. */
  readonly failed: Promise<HotsiteError>
  /** For payload that will be given to `write`: it need not be moved there. Undefined: no room. */
  readonly payloadMemory: (sizeBytes: number) => Buffer | undefined
}

export interface ReplicaWorkerData {
  readonly dir: string
  /** Of PayloadSlots. */
  readonly payloadMemory: SharedArrayBuffer
}

/** Opens the store of `dir` in a thread of its own. */
export function openRemoteReplicaStore({ dir, log }: { dir: string; log: Logger }): ReplicaWorker {
  const url = new URL('./worker.ts', import.meta.url)
  const workerData: ReplicaWorkerData = { dir, payloadMemory: payloadMemory(PAYLOAD_SLOTS) }
  const slots = new PayloadSlots(workerData.payloadMemory)
  return connectReplicaWorker(
    new Worker(url, { name: 'replica', workerData, resourceLimits: workerMemory }),
    log,
    slots,
  )
}

export function connectReplicaWorker(worker: Worker, log: Logger, slots: PayloadSlots): ReplicaWorker {
  const thread = new StoreThread(worker, log, slots)
  let lastWriterId = 0
  const passedOn = Object.fromEntries(
    storeMethods.map((method) => [
      method,
      (...args: unknown[]) => thread.call({ target: 'store', method, args }),
    ]),
  )
  const store = {
    ...passedOn,
    failed: thread.failed,
    payloadMemory: (sizeBytes: number) => slots.take(sizeBytes),
    begin: async (header: Parameters<RemoteReplicaStore['begin']>[0]) => {
      const writerId = ++lastWriterId
      const resume = (await thread.call({ target: 'begin', writerId, header })) as DiskProgress[]
      return remoteWriter(thread, { writerId, resume })
    },
    [Symbol.asyncDispose]: () => thread.end(),
  }
  // Object.fromEntries forgets the names; `everyMethodIsPassedOn` in remote.ts holds the list against the port.
  return store as unknown as ReplicaWorker
}

function remoteWriter(
  thread: StoreThread,
  { writerId, resume }: { writerId: number; resume: readonly DiskProgress[] },
): RemoteDeltaWriter {
  let failed: Error | undefined
  const call = async (remote: RemoteCall) => {
    if (failed) throw failed
    const value = await thread.call(remote)
    // A batch that failed meanwhile answered before: calls are answered in their order.
    if (failed) throw failed
    return value
  }
  return {
    resume,
    write: async (batch) => {
      if (failed) throw failed
      const sent = thread.write(writerId, batch)
      sent.catch((error: Error) => {
        failed ??= error
      })
      await thread.room()
    },
    sync: () => call({ target: 'writer', writerId, method: 'sync', args: [] }) as Promise<DiskProgress[]>,
    seal: (manifest) =>
      call({ target: 'writer', writerId, method: 'seal', args: [manifest] }) as ReturnType<
        RemoteDeltaWriter['seal']
      >,
    close: async () => {
      await thread.call({ target: 'writer', writerId, method: 'close', args: [] })
    },
  }
}

class StoreThread {
  readonly failed: Promise<HotsiteError>
  readonly #failure = Promise.withResolvers<HotsiteError>()
  readonly #worker: Worker
  readonly #slots: PayloadSlots
  readonly #waiting = new Map<number, Waiting>()
  readonly #exited: Promise<void>
  #lastCallId = 0
  #queuedBytes = 0
  #roomWaiters: (() => void)[] = []
  #stopped: HotsiteError | undefined
  #ending = false

  constructor(worker: Worker, log: Logger, slots: PayloadSlots) {
    this.#worker = worker
    this.#slots = slots
    this.failed = this.#failure.promise
    this.#worker.on('message', (message: FromWorker) => this.#onMessage(message, log))
    this.#worker.on('error', (error) => {
      log.error('replica.worker-failed', { error })
      this.#stop(`the replica worker failed: ${error instanceof Error ? error.message : String(error)}`)
    })
    this.#exited = new Promise((resolve) => {
      this.#worker.once('exit', () => {
        this.#stop('the replica worker has ended')
        resolve()
      })
    })
  }

  call(call: RemoteCall, moved: readonly ArrayBuffer[] = []): Promise<unknown> {
    if (this.#stopped) return Promise.reject(this.#stopped)
    const callId = ++this.#lastCallId
    const request: RemoteRequest = { callId, call }
    this.#worker.postMessage(request, moved)
    return new Promise<unknown>((resolve, reject) => {
      this.#waiting.set(callId, { resolve, reject })
    })
  }

  write(writerId: number, batch: StoredBlocks): Promise<unknown> {
    const bytes = Math.max(batch.payload.length, MESSAGE_BYTES)
    const slot = this.#slots.give(batch.payload)
    const moved = slot ? { batch: { ...batch, payload: slot }, memory: [] } : movable(batch)
    this.#queuedBytes += bytes
    return this.call({ target: 'write', writerId, batch: moved.batch }, moved.memory).finally(() =>
      this.#release(bytes),
    )
  }

  /** Resolves while less than QUEUE_BYTES are on their way. */
  async room(): Promise<void> {
    while (this.#queuedBytes > QUEUE_BYTES && !this.#stopped) {
      await new Promise<void>((resolve) => this.#roomWaiters.push(resolve))
    }
  }

  async end(): Promise<void> {
    this.#ending = true
    if (!this.#stopped) await this.call({ target: 'end' })
    await this.#exited
  }

  #release(bytes: number): void {
    this.#queuedBytes -= bytes
    this.#wakeWaiters()
  }

  #wakeWaiters(): void {
    const waiters = this.#roomWaiters
    this.#roomWaiters = []
    for (const wake of waiters) wake()
  }

  #onMessage(message: FromWorker, log: Logger): void {
    if (message.kind === 'log') {
      log[message.level](message.event, message.fields)
      return
    }
    const waiting = this.#waiting.get(message.callId)
    this.#waiting.delete(message.callId)
    if (message.kind === 'error') waiting?.reject(errorOf(message.error))
    else waiting?.resolve(revived(message.value))
  }

  #stop(why: string): void {
    this.#stopped ??= new HotsiteError('replica-store-stopped', why)
    if (!this.#ending) this.#failure.resolve(this.#stopped)
    for (const { reject } of this.#waiting.values()) reject(this.#stopped)
    this.#waiting.clear()
    this.#wakeWaiters()
  }
}
