/** The thread that owns the replica store. One request at a time, in the order they came. */
import { parentPort, workerData } from 'node:worker_threads'
import { assertNever, defined } from '#shared/assert.ts'
import { PayloadSlots } from '#shared/blocks/payload-slots.ts'
import { systemClock } from '#shared/clock.ts'
import { crashPointFromEnv } from '#shared/crash-point.ts'
import { errorDocument, HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { LogFields, Logger } from '#shared/log.ts'
import type { ReplicaWorkerData } from './client.ts'
import { asReplicaError } from './context.ts'
import type { DeltaWriter, ReplicaStore, StoreSteps } from './port.ts'
import { expand, type FromWorker, free, type RemoteCall, type RemoteRequest, received } from './remote.ts'
import { openReplicaStore } from './store.ts'

const port = defined(parentPort, 'parent port')

function post(message: FromWorker): void {
  port.postMessage(message)
}

/** Errors do not survive structured cloning with their code; everything else of a field does, or becomes text. */
function cloneable(fields: LogFields): LogFields {
  return Object.fromEntries(
    Object.entries(fields).map(([name, value]) => [
      name,
      value instanceof Error ? { ...errorDocument(value), stack: value.stack } : value,
    ]),
  )
}

function threadLog(bound: LogFields): Logger {
  const line =
    (level: 'debug' | 'info' | 'warn' | 'error') =>
    (event: string, fields: LogFields = {}) =>
      post({ kind: 'log', level, event, fields: cloneable({ ...bound, ...fields }) })
  return {
    debug: line('debug'),
    info: line('info'),
    warn: line('warn'),
    error: line('error'),
    with: (fields) => threadLog({ ...bound, ...fields }),
  }
}

/** A store that cannot be opened answers every request with the reason. */
function open():
  | { readonly store: ReplicaStore & Disposable & { readonly steps: StoreSteps } }
  | { readonly failed: unknown } {
  try {
    const crashPoint = crashPointFromEnv(process.env)
    return { store: openReplicaStore({ dir, clock: systemClock, log: threadLog({}), crashPoint }) }
  } catch (error) {
    return { failed: error }
  }
}

const { dir, payloadMemory } = workerData as ReplicaWorkerData
const slots = new PayloadSlots(payloadMemory)
const opened = open()
const writers = new Map<number, DeltaWriter>()

function writerOrThrow(writerId: number): DeltaWriter {
  const writer = writers.get(writerId)
  if (!writer) throw new HotsiteError('writer-closed', 'the writer of this delta was closed')
  return writer
}

const stepwise = ['adopt', 'createOverlay', 'verify', 'heal'] as const satisfies readonly (keyof StoreSteps)[]

function isStepwise(method: string): method is (typeof stepwise)[number] {
  return stepwise.some((name) => name === method)
}

/** How long one slice of a long work may keep everything else of the store waiting. */
const SLICE_MS = 25

/** What goes on in slices; ended with the store. */
const going = new Set<Generator<void, unknown>>()

/** Between two slices the requests that came meanwhile are served. */
async function inSlices(steps: Generator<void, unknown>): Promise<unknown> {
  going.add(steps)
  try {
    for (;;) {
      const untilMs = systemClock.monotonicMs() + SLICE_MS
      do {
        const { done, value } = steps.next()
        if (done && !going.has(steps)) throw new HotsiteError('replica-store-stopped', 'the store was closed')
        if (done) return value
      } while (systemClock.monotonicMs() < untilMs)
      await new Promise((resolve) => setImmediate(resolve))
    }
  } finally {
    going.delete(steps)
  }
}

function run(call: RemoteCall): unknown {
  if (call.target === 'end') {
    for (const steps of [...going]) {
      going.delete(steps)
      steps.return(undefined)
    }
    if ('store' in opened) opened.store[Symbol.dispose]()
    return undefined
  }
  if ('failed' in opened) throw opened.failed
  const { store } = opened
  switch (call.target) {
    case 'store': {
      if (isStepwise(call.method)) {
        const steps = store.steps[call.method] as (...args: readonly unknown[]) => Generator<void, unknown>
        return inSlices(steps(...call.args))
      }
      const method = store[call.method] as (...args: readonly unknown[]) => unknown
      return method.apply(store, [...call.args])
    }
    case 'begin': {
      const writer = store.begin(call.header)
      writers.set(call.writerId, writer)
      return writer.resume
    }
    case 'write': {
      const batch = received(call.batch, slots)
      try {
        return writerOrThrow(call.writerId).write(expand(batch))
      } finally {
        // Written or refused, nobody has it any more.
        free(batch, slots)
      }
    }
    case 'writer': {
      if (call.method === 'close' && !writers.has(call.writerId)) return undefined
      const writer = writerOrThrow(call.writerId)
      if (call.method !== 'sync') writers.delete(call.writerId)
      const method = writer[call.method] as (...args: readonly unknown[]) => unknown
      return method.apply(writer, [...call.args])
    }
    default:
      return assertNever(call)
  }
}

port.on('message', ({ callId, call }: RemoteRequest) => {
  const failed = (error: unknown) => {
    post({ kind: 'error', callId, error: errorDocument(asReplicaError(error, dir)) })
    // The database itself is damaged: this life is over, the next one sets the file aside.
    if (error instanceof HotsiteError && error.details['restart'] === true)
      setImmediate(() => {
        throw error
      })
  }
  try {
    const value = run(call)
    if (value instanceof Promise)
      value.then((later) => post({ kind: 'result', callId, value: later }), failed)
    else post({ kind: 'result', callId, value })
  } catch (error) {
    failed(error)
  }
  if (call.target === 'end') port.close()
})
