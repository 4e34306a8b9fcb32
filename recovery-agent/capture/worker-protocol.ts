/**
 * What main thread and capture worker say to each other: one request, one reply, both plain data. Payload crosses by
 * transfer, not by copy; errors cross as documents; a synchronization is named by a number.
 */
import type { SlotReference } from '#shared/blocks/payload-slots.ts'
import type { ErrorDocument } from '#shared/errors/hotsite-error.ts'
import type { DiskId, VmId } from '#shared/ids.ts'
import type { LogFields } from '#shared/log.ts'
import type { ResyncCause } from '#shared/messages/commands.ts'
import type { OwedRange } from '../buffer/owed.ts'
import type { HypervisorConfig } from '../hypervisor/open.ts'
import type { SeedExport, SeedExportRequest } from '../seed/export-seed.ts'
import type { CaptureLimits } from './limits.ts'
import type {
  BatchRequest,
  CaptureOptions,
  CaptureOutcome,
  CaptureStats,
  SealedDelta,
  SourceVm,
  SourceVmState,
  StoredBatch,
  SyncSession,
  VerifyOutcome,
} from './port.ts'
import type { ProvedRequest } from './read-proved.ts'

/** The secret key goes from memory to memory and is never logged (I15). */
export interface CaptureWorkerConfig {
  readonly dataDir: string
  readonly hypervisor: HypervisorConfig
  /** Exports an `openHypervisor` to use instead of the one of hypervisor/open.ts. */
  readonly hypervisorModule?: string | undefined
  readonly vaultId: string
  readonly serverId: string
  readonly secretKey: Uint8Array
  readonly limits: CaptureLimits
}

export interface CaptureWorkerData extends CaptureWorkerConfig {
  /** Of PayloadSlots. */
  readonly payloadMemory: SharedArrayBuffer
}

/** A batch whose payload lost its Buffer nature on the way, or lies where both threads reach it. */
export type WireBatch = Omit<StoredBatch, 'payload' | 'release'> & {
  readonly payload: Uint8Array<ArrayBuffer> | SlotReference
}

export type SyncDescription = Pick<
  SyncSession,
  'seq' | 'baseSeq' | 'capturedAtMs' | 'consistency' | 'freezeMs' | 'disks'
> & { readonly session: number }

/** Every call: its argument and its answer. */
export interface WorkerCalls {
  add(argument: { vm: SourceVm; cause: ResyncCause }): void
  requireSync(argument: { vmId: VmId; cause: ResyncCause }): void
  forget(argument: { vmId: VmId }): void
  states(argument: null): readonly SourceVmState[]
  state(argument: { vmId: VmId }): SourceVmState | undefined
  capture(argument: { vmId: VmId } & CaptureOptions): CaptureOutcome
  verify(argument: { vmId: VmId; percent: number }): VerifyOutcome
  nextDelta(argument: {
    vmId: VmId
    afterSeq: number
    throughSeq: number | undefined
  }): SealedDelta | undefined
  pendingDeltas(argument: { vmId: VmId }): readonly SealedDelta[]
  readBatch(argument: BatchRequest): WireBatch
  readProved(argument: { vmId: VmId; request: ProvedRequest }): WireBatch
  acknowledge(argument: { vmId: VmId; seq: number }): void
  owe(argument: { vmId: VmId; range: OwedRange }): void
  owedDelta(argument: { vmId: VmId; baseSeq: number; seq: number }): SealedDelta | undefined
  exportSeed(argument: SeedExportRequest): SeedExport
  usage(argument: null): { bufferedBytes: number; maxBytes: number }
  openSync(argument: { vmId: VmId; newestSeq: number }): SyncDescription
  differingGroups(argument: {
    session: number
    diskId: DiskId
    first: number
    targetNodes: Uint8Array<ArrayBuffer>
  }): readonly number[]
  differingBlocks(argument: {
    session: number
    diskId: DiskId
    group: number
    targetLeaves: Uint8Array<ArrayBuffer>
    firstBatch: number
    compress: boolean
  }): readonly WireBatch[]
  countDiffering(argument: {
    session: number
    diskId: DiskId
    group: number
    targetLeaves: Uint8Array<ArrayBuffer>
  }): number
  manifest(argument: { session: number }): { manifest: Uint8Array; stats: CaptureStats }
  commit(argument: { session: number }): void
  closeSync(argument: { session: number }): void
  close(argument: null): void
}

export type WorkerCall = keyof WorkerCalls
export type CallArgument<Call extends WorkerCall> = Parameters<WorkerCalls[Call]>[0]
export type CallResult<Call extends WorkerCall> = ReturnType<WorkerCalls[Call]>

export interface WorkerRequest {
  readonly id: number
  readonly call: WorkerCall
  readonly argument: unknown
}

export type WorkerMessage =
  | { readonly kind: 'ready' }
  | { readonly kind: 'failed'; readonly error: ErrorDocument }
  | { readonly kind: 'result'; readonly id: number; readonly value: unknown }
  | { readonly kind: 'error'; readonly id: number; readonly error: ErrorDocument }
  | {
      readonly kind: 'log'
      readonly level: 'debug' | 'info' | 'warn' | 'error'
      readonly event: string
      readonly fields: LogFields
    }

/** Buffers that may be moved: memory of their own, each once. */
export function transferable(batches: readonly WireBatch[]): ArrayBuffer[] {
  const own = batches.flatMap(({ payload }) => ('slot' in payload ? [] : [payload]))
  const whole = own.filter(({ byteLength, buffer }) => byteLength > 0 && byteLength === buffer.byteLength)
  return [...new Set(whole.map(({ buffer }) => buffer))]
}
