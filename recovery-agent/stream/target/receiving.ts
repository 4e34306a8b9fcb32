import type { DeltaHeader, DiskProgress, SealOutcome, SignedManifest } from '#recovery-agent/replica/port.ts'
import type { RemoteDeltaWriter } from '#recovery-agent/replica/remote.ts'
import { BLOCK_BYTES } from '#shared/blocks/block.ts'
import type { Bodies } from '#shared/channel/message.ts'
import type { Clock } from '#shared/clock.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { DiskId } from '#shared/ids.ts'
import { limits } from '../../limits.ts'
import { checkBatch } from './check-batch.ts'

export interface Durable {
  readonly disks: readonly DiskProgress[]
  /** Payload consumed since the last one: the source may send as much again. */
  readonly creditBytes: number
}

/** One delta on its way into the replica: order of batches, and when to make them durable. */
export class Receiving {
  readonly header: DeltaHeader
  readonly #writer: RemoteDeltaWriter
  readonly #nextBatch = new Map<DiskId, number>()
  readonly #clock: Pick<Clock, 'monotonicMs'>
  #payloadBytes = 0
  #rawBytes = 0
  #syncedMs: number

  constructor(header: DeltaHeader, writer: RemoteDeltaWriter, clock: Pick<Clock, 'monotonicMs'>) {
    this.header = header
    this.#writer = writer
    this.#clock = clock
    this.#syncedMs = clock.monotonicMs()
    for (const { diskId } of header.disks) this.#nextBatch.set(diskId, 0)
    for (const { diskId, nextBatch } of writer.resume) this.#nextBatch.set(diskId, nextBatch)
  }

  /** For each disk of the delta, where the source should go on. */
  get progress(): readonly DiskProgress[] {
    return [...this.#nextBatch].map(([diskId, nextBatch]) => ({ diskId, nextBatch }))
  }

  get unsynced(): boolean {
    return this.#payloadBytes > 0 || this.#rawBytes > 0
  }

  get dueForSync(): boolean {
    return (
      this.#payloadBytes >= limits.durableEveryPayloadBytes ||
      this.#rawBytes >= limits.durableEveryRawBytes ||
      (this.unsynced && this.#clock.monotonicMs() - this.#syncedMs >= limits.durableEveryMs)
    )
  }

  /** Throws `stream-malformed`, `stream-out-of-order`. A batch that is here already counts as consumed (I4). */
  async accept(body: Bodies['blocks'], tail: Buffer | undefined): Promise<void> {
    const batch = checkBatch(body, tail, this.header)
    const expected = this.#nextBatch.get(batch.diskId) ?? 0
    if (batch.batch > expected) {
      throw new HotsiteError(
        'stream-out-of-order',
        `batch ${batch.batch} of disk ${batch.diskId} came before batch ${expected}`,
      )
    }
    this.#payloadBytes += tail?.length ?? 0
    this.#rawBytes += batch.blockIndexes.length * BLOCK_BYTES
    if (batch.batch < expected) return
    await this.#writer.write(batch)
    this.#nextBatch.set(batch.diskId, expected + 1)
  }

  /** What was accepted until now. Batches may be accepted meanwhile: the writer takes everything in order. */
  async sync(): Promise<Durable> {
    const creditBytes = this.#payloadBytes
    this.#payloadBytes = 0
    this.#rawBytes = 0
    this.#syncedMs = this.#clock.monotonicMs()
    return { disks: await this.#writer.sync(), creditBytes }
  }

  /** All batches must be here. Throws `stream-out-of-order` otherwise. */
  async seal(
    manifest: SignedManifest,
    batches: readonly { readonly diskId: DiskId; readonly nextBatch: number }[],
  ): Promise<SealOutcome> {
    for (const [diskId, nextBatch] of this.#nextBatch) {
      const sent = batches.find((one) => one.diskId === diskId)?.nextBatch
      if (sent !== nextBatch) {
        throw new HotsiteError(
          'stream-out-of-order',
          `disk ${diskId} ends after ${sent ?? 'no'} batches, ${nextBatch} came`,
        )
      }
    }
    return await this.#writer.seal(manifest)
  }

  /** Keeps what came so far for the next attempt. */
  async close(): Promise<void> {
    try {
      if (this.unsynced) await this.#writer.sync()
    } finally {
      await this.#writer.close()
    }
  }
}
