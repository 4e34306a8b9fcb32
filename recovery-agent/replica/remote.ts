/**
 * The replica store behind a worker: the same methods, each answer a promise. What crosses the thread is one kind of
 * request and one kind of reply; errors travel as documents and become HotsiteErrors again.
 */
import { type ErrorDocument, errorFromDocument } from '#shared/errors/hotsite-error.ts'
import type { DiskId } from '#shared/ids.ts'
import type { LogFields } from '#shared/log.ts'
import type { BlockBatch, DeltaHeader, DeltaWriter, ReplicaStore } from './port.ts'

type Promised<Methods> = {
  readonly [Name in keyof Methods]: Methods[Name] extends (...args: infer Args) => infer Result
    ? (...args: Args) => Promise<Result>
    : Methods[Name]
}

export type RemoteDeltaWriter = Promised<Omit<DeltaWriter, 'write'>> & {
  /** Resolves when there is room for more; an error of an earlier batch shows with the next call. */
  write(batch: BlockBatch): Promise<void>
}

export type RemoteReplicaStore = Promised<Omit<ReplicaStore, 'begin'>> & {
  begin(header: DeltaHeader): Promise<RemoteDeltaWriter>
} & AsyncDisposable

/** Methods that are passed on as they are. */
export const storeMethods = [
  'recover',
  'list',
  'get',
  'prepare',
  'adopt',
  'raiseEpoch',
  'setPolicy',
  'discardPartial',
  'treeNodes',
  'points',
  'pin',
  'prune',
  'createOverlay',
  'removeOverlay',
  'commit',
  'remove',
  'layerPath',
  'usage',
] as const satisfies readonly (keyof ReplicaStore)[]
export type StoreMethod = (typeof storeMethods)[number]

/** Fails to compile when the port has a method that is not passed on. */
type Missing = Exclude<keyof ReplicaStore, StoreMethod | 'begin'>
export const everyMethodIsPassedOn: [Missing] extends [never] ? true : never = true

export const writerMethods = ['sync', 'seal', 'close'] as const satisfies readonly (keyof DeltaWriter)[]
export type WriterMethod = (typeof writerMethods)[number]

/** A batch with its blocks in one buffer of its own, which is transferred, not copied. */
export interface PackedBatch {
  readonly diskId: DiskId
  readonly batch: number
  readonly blockIndexes: readonly number[]
  /** Length of each block, 0 for a zero block; they follow each other in `payload`. */
  readonly blockBytes: readonly number[]
  readonly payload: ArrayBuffer
}

export type RemoteCall =
  | { readonly target: 'store'; readonly method: StoreMethod; readonly args: readonly unknown[] }
  | { readonly target: 'begin'; readonly writerId: number; readonly header: DeltaHeader }
  | { readonly target: 'write'; readonly writerId: number; readonly batch: PackedBatch }
  | {
      readonly target: 'writer'
      readonly writerId: number
      readonly method: WriterMethod
      readonly args: readonly unknown[]
    }
  | { readonly target: 'end' }

export interface RemoteRequest {
  readonly callId: number
  readonly call: RemoteCall
}

export type FromWorker =
  | { readonly kind: 'result'; readonly callId: number; readonly value: unknown }
  | { readonly kind: 'error'; readonly callId: number; readonly error: ErrorDocument }
  | {
      readonly kind: 'log'
      readonly level: 'debug' | 'info' | 'warn' | 'error'
      readonly event: string
      readonly fields: LogFields
    }

export function packBatch({ diskId, batch, blockIndexes, blocks }: BlockBatch): PackedBatch {
  const blockBytes = blocks.map((block) => block?.length ?? 0)
  const payload = new ArrayBuffer(blockBytes.reduce((sum, bytes) => sum + bytes, 0))
  const target = Buffer.from(payload)
  let offset = 0
  for (const block of blocks) offset += block?.copy(target, offset) ?? 0
  return { diskId, batch, blockIndexes, blockBytes, payload }
}

export function unpackBatch({ diskId, batch, blockIndexes, blockBytes, payload }: PackedBatch): BlockBatch {
  let offset = 0
  const blocks = blockBytes.map((bytes) => {
    if (bytes === 0) return null
    const block = Buffer.from(payload, offset, bytes)
    offset += bytes
    return block
  })
  return { diskId, batch, blockIndexes, blocks }
}

/** Buffers lose their class on the way. */
export function revived(value: unknown): unknown {
  return value instanceof Uint8Array ? Buffer.from(value.buffer, value.byteOffset, value.byteLength) : value
}

export function errorOf(document: ErrorDocument): Error {
  return errorFromDocument({
    code: document.code,
    message: document.message,
    details: { ...document.details },
  })
}
