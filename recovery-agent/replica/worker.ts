/** The thread that owns the replica store. One request at a time, in the order they came. */
import { parentPort, workerData } from 'node:worker_threads'
import { assertNever, defined } from '#shared/assert.ts'
import { systemClock } from '#shared/clock.ts'
import { crashPointFromEnv } from '#shared/crash-point.ts'
import { errorDocument, HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { LogFields, Logger } from '#shared/log.ts'
import { asReplicaError } from './context.ts'
import type { DeltaWriter, ReplicaStore } from './port.ts'
import { expand, type FromWorker, free, type RemoteCall, type RemoteRequest } from './remote.ts'
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
function open(): { readonly store: ReplicaStore & Disposable } | { readonly failed: unknown } {
  try {
    const { dir } = workerData as { dir: string }
    const crashPoint = crashPointFromEnv(process.env)
    return { store: openReplicaStore({ dir, clock: systemClock, log: threadLog({}), crashPoint }) }
  } catch (error) {
    return { failed: error }
  }
}

const opened = open()
const writers = new Map<number, DeltaWriter>()

function writerOrThrow(writerId: number): DeltaWriter {
  const writer = writers.get(writerId)
  if (!writer) throw new HotsiteError('writer-closed', 'the writer of this delta was closed')
  return writer
}

function run(call: RemoteCall): unknown {
  if (call.target === 'end') {
    if ('store' in opened) opened.store[Symbol.dispose]()
    return undefined
  }
  if ('failed' in opened) throw opened.failed
  const { store } = opened
  switch (call.target) {
    case 'store': {
      const method = store[call.method] as (...args: readonly unknown[]) => unknown
      return method.apply(store, [...call.args])
    }
    case 'begin': {
      const writer = store.begin(call.header)
      writers.set(call.writerId, writer)
      return writer.resume
    }
    case 'write':
      try {
        return writerOrThrow(call.writerId).write(expand(call.batch))
      } finally {
        // Written or refused, nobody has it any more.
        free(call.batch)
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
  try {
    post({ kind: 'result', callId, value: run(call) })
  } catch (error) {
    post({ kind: 'error', callId, error: errorDocument(asReplicaError(error)) })
  }
  if (call.target === 'end') port.close()
})
