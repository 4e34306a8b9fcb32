/**
 * The replica store behind a worker: the same methods, each answer a promise. What crosses the thread is one kind of
 * request and one kind of reply; errors travel as documents and become HotsiteErrors again.
 */
import { type PackedBatch, unpackWithHeld } from '#shared/blocks/batch.ts'
import type { PayloadSlots, SlotReference } from '#shared/blocks/payload-slots.ts'
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
  /**
   * Resolves when there is room for more; an error of an earlier batch shows with the next call. The payload is given
   * away: it may be moved to the worker and be empty afterwards.
   */
  write(batch: StoredBlocks): Promise<void>
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
  'keepBackfills',
  'discardPartial',
  'treeNodes',
  'points',
  'pin',
  'prune',
  'createOverlay',
  'removeOverlay',
  'formerOverlays',
  'commit',
  'remove',
  'layerPath',
  'usage',
  'verify',
  'heal',
  'scrub',
  'proof',
  'repairWanted',
  'repair',
  'slowDownMs',
] as const satisfies readonly (keyof ReplicaStore)[]
export type StoreMethod = (typeof storeMethods)[number]

/** Fails to compile when the port has a method that is not passed on. */
type Missing = Exclude<keyof ReplicaStore, StoreMethod | 'begin'>
export const everyMethodIsPassedOn: [Missing] extends [never] ? true : never = true

export const writerMethods = ['sync', 'seal', 'close'] as const satisfies readonly (keyof DeltaWriter)[]
export type WriterMethod = (typeof writerMethods)[number]

/** A batch as it came: blocks in their stored form, expanded in the worker. */
export interface StoredBlocks extends PackedBatch {
  readonly diskId: DiskId
  readonly batch: number
}

/** The same on its way to the worker: the payload moved, or where both threads reach it. */
export type PassedBlocks = Omit<StoredBlocks, 'payload'> & { readonly payload: Buffer | SlotReference }

export type RemoteCall =
  | { readonly target: 'store'; readonly method: StoreMethod; readonly args: readonly unknown[] }
  | { readonly target: 'begin'; readonly writerId: number; readonly header: DeltaHeader }
  | { readonly target: 'write'; readonly writerId: number; readonly batch: PassedBlocks }
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

/** With a payload that can be moved to another thread: memory of its own. */
export function movable(batch: StoredBlocks): {
  readonly batch: StoredBlocks
  readonly memory: readonly ArrayBuffer[]
} {
  const { buffer, byteLength } = batch.payload
  if (buffer instanceof ArrayBuffer && byteLength > 0 && byteLength === buffer.byteLength)
    return { batch, memory: [buffer] }
  const payload = Buffer.allocUnsafeSlow(byteLength)
  batch.payload.copy(payload)
  return { batch: { ...batch, payload }, memory: [payload.buffer] }
}

/** In the worker. */
export function received(batch: PassedBlocks, slots: PayloadSlots): StoredBlocks {
  const { payload } = batch
  if ('slot' in payload) return { ...batch, payload: slots.accept(payload) }
  return { ...batch, payload: Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength) }
}

/** Throws `block-malformed`. */
export function expand({ diskId, batch, blockIndexes, storedBytes, payload }: StoredBlocks): BlockBatch {
  return { diskId, batch, blockIndexes, blocks: unpackWithHeld({ blockIndexes, storedBytes, payload }) }
}

/** Gives the memory of a batch back at once; waiting for the collector makes it run far more often. */
export function free({ payload }: StoredBlocks, slots: PayloadSlots): void {
  slots.release(payload)
  if (payload.buffer instanceof ArrayBuffer) payload.buffer.transfer(0)
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
