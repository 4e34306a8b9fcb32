import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type {
  BlockBatch,
  DeltaHeader,
  DeltaWriter,
  DiskProgress,
  SealOutcome,
  SignedManifest,
} from '../port.ts'
import type { ReceivingDelta } from './receiving-delta.ts'

export interface WriterOwner {
  seal(delta: ReceivingDelta, manifest: SignedManifest): SealOutcome
  /** Something went wrong with it; answers the error to give to whoever writes. */
  failed(error: unknown): unknown
  /** The writer let go of the delta. */
  released(writer: ReplicaDeltaWriter): void
}

/**
 * Writes to one delta until it is sealed, closed, superseded or fenced. Any error ends it: what is not durable is then
 * in doubt, and the next attempt begins at the journal.
 */
export class ReplicaDeltaWriter implements DeltaWriter {
  readonly resume: readonly DiskProgress[]
  readonly delta: ReceivingDelta
  readonly #owner: WriterOwner
  #closedBecause: HotsiteError | null = null

  constructor(delta: ReceivingDelta, owner: WriterOwner) {
    this.delta = delta
    this.#owner = owner
    this.resume = delta.progress()
  }

  write(batch: BlockBatch): void {
    this.#attempt(() => this.delta.write(batch))
  }

  sync(): readonly DiskProgress[] {
    return this.#attempt(() => this.delta.sync())
  }

  seal(manifest: SignedManifest): SealOutcome {
    const outcome = this.#attempt(() => this.#owner.seal(this.delta, manifest))
    this.close()
    return outcome
  }

  close(): void {
    this.end(new HotsiteError('writer-closed', 'the writer of this delta was closed'))
  }

  /** Every later call fails with this. */
  end(because: HotsiteError): void {
    if (this.#closedBecause) return
    this.#closedBecause = because
    this.delta.close()
    this.#owner.released(this)
  }

  #attempt<T>(work: () => T): T {
    if (this.#closedBecause) throw this.#closedBecause
    try {
      return work()
    } catch (error) {
      const known = this.#owner.failed(error)
      this.end(
        known instanceof HotsiteError
          ? known
          : new HotsiteError('writer-closed', 'the writer of this delta failed', { cause: known }),
      )
      throw known
    }
  }
}

/** The delta arrived before, whole, and is in the chain: nothing is left to do (I4). */
export function alreadySealed(header: DeltaHeader): DeltaWriter {
  const resume = header.disks.map(({ diskId }) => ({ diskId, nextBatch: Number.MAX_SAFE_INTEGER }))
  return {
    resume,
    write: () => {},
    sync: () => resume,
    seal: () => ({ kind: 'sealed' }),
    close: () => {},
  }
}
