/**
 * Engine and store as the agent's main thread sees them: every call crosses to a worker and back, in order, taking
 * some time; errors cross as documents; of a killed process nothing comes back.
 */
import type { CaptureEngine, SyncSession } from '#recovery-agent/capture/port.ts'
import type { ReplicaStore } from '#recovery-agent/replica/port.ts'
import { expand, type RemoteDeltaWriter, type RemoteReplicaStore } from '#recovery-agent/replica/remote.ts'
import { errorDocument, errorFromDocument } from '#shared/errors/hotsite-error.ts'
import type { Scheduler } from './scheduler.ts'

export class Worker {
  readonly #scheduler: Scheduler
  readonly #isAlive: () => boolean
  readonly #delayMs: () => number
  #freeAtMs = 0

  constructor(options: { scheduler: Scheduler; isAlive: () => boolean; delayMs: () => number }) {
    this.#scheduler = options.scheduler
    this.#isAlive = options.isAlive
    this.#delayMs = options.delayMs
  }

  async call<T>(work: () => T | Promise<T>): Promise<T> {
    await this.#cross()
    let outcome: { readonly value: T } | { readonly error: unknown }
    try {
      outcome = { value: await work() }
    } catch (error) {
      outcome = { error }
    }
    await this.#cross()
    if ('value' in outcome) return outcome.value
    throw errorFromDocument({ ...errorDocument(outcome.error) })
  }

  /** First in, first out. */
  async #cross(): Promise<void> {
    const delayMs = this.#delayMs()
    if (delayMs > 0) {
      this.#freeAtMs = Math.max(this.#freeAtMs, this.#scheduler.nowMs + delayMs)
      await this.#scheduler.sleep(this.#freeAtMs - this.#scheduler.nowMs)
    }
    if (!this.#isAlive()) await new Promise<never>(() => {})
  }
}

/** Every method of `target` as a call of the worker; what is no function stays. */
function passedOn<Target extends object>(target: Target, worker: Worker): Target {
  return new Proxy(target, {
    get(_, name) {
      const value: unknown = Reflect.get(target, name)
      if (typeof value !== 'function') return value
      return (...args: unknown[]) => worker.call(() => value.apply(target, args))
    },
  })
}

export function remoteEngine(engine: CaptureEngine, worker: Worker): CaptureEngine {
  const plain = passedOn(engine, worker)
  return new Proxy(plain, {
    get(_, name) {
      if (name !== 'openSync') return Reflect.get(plain, name)
      return async (...args: Parameters<CaptureEngine['openSync']>): Promise<SyncSession> =>
        passedOn(await plain.openSync(...args), worker)
    },
  })
}

export function remoteStore(
  store: ReplicaStore & Disposable,
  worker: Worker,
  onBatch: (payload: Buffer) => Buffer,
): RemoteReplicaStore {
  const plain = passedOn(store, worker) as unknown as RemoteReplicaStore
  return new Proxy(plain, {
    get(_, name) {
      if (name === 'begin')
        return async (header: Parameters<ReplicaStore['begin']>[0]) =>
          remoteWriter(await worker.call(() => store.begin(header)), worker, onBatch)
      if (name === Symbol.asyncDispose) return () => worker.call(() => store[Symbol.dispose]())
      return Reflect.get(plain, name)
    },
  })
}

/** A batch is sent without waiting for it: what went wrong shows with a later call. */
function remoteWriter(
  writer: ReturnType<ReplicaStore['begin']>,
  worker: Worker,
  onBatch: (payload: Buffer) => Buffer,
): RemoteDeltaWriter {
  let failed: unknown
  const later = async <T>(work: () => T): Promise<T> => {
    if (failed) throw failed
    const value = await worker.call(work)
    if (failed) throw failed
    return value
  }
  return {
    resume: writer.resume,
    async write(batch) {
      if (failed) throw failed
      const received = { ...batch, payload: onBatch(batch.payload) }
      worker
        .call(() => writer.write(expand(received)))
        .catch((error) => {
          failed ??= error
        })
    },
    sync: () => later(() => writer.sync()),
    seal: (manifest) => later(() => writer.seal(manifest)),
    close: () => worker.call(() => writer.close()),
  }
}
