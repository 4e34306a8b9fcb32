/**
 * Payload of the delta that was captured last, where it was put together and the main thread can reach it: what is sent
 * soon need not be read from the buffer again. A shortcut only. Each batch is in the buffer as well, is looked for here
 * after the row of its delta was found sealed, and is given away once: what is asked for again comes from the buffer.
 *
 * One copy cycle at a time keeps anything. Its memory is its own until its last row is written, whatever other cycles do.
 */
import type { PayloadSlots } from '#shared/blocks/payload-slots.ts'
import type { BatchRow } from '../buffer/delta-rows.ts'

/** Places of 1 MiB, of the whole agent: half of what its threads share, so that synchronizations have theirs. */
const MAX_KEPT = 32

interface Place {
  readonly disk: number
  readonly batch: number
}

/** Of the whole agent. */
export class NewestPayload {
  readonly #slots: PayloadSlots | undefined
  #writing: KeptPayload | undefined
  #sealed: { readonly delta: number; readonly kept: KeptPayload } | undefined

  constructor(slots: PayloadSlots | undefined) {
    this.#slots = slots
  }

  /** For one cycle; dispose it when the cycle is over. What is left of the delta before is dropped. */
  open(): KeptPayload {
    if (this.#writing) return new KeptPayload(undefined, () => {})
    this.#sealed?.kept.drop()
    this.#sealed = undefined
    const kept = new KeptPayload(this.#slots, (delta) => {
      this.#writing = undefined
      if (delta === null) kept.drop()
      else this.#sealed = { delta, kept }
    })
    this.#writing = kept
    return kept
  }

  take({ delta, ...place }: Place & { readonly delta: number }): BatchRow | undefined {
    return this.#sealed?.delta === delta ? this.#sealed.kept.take(place) : undefined
  }
}

/** Of one delta. */
export class KeptPayload implements Disposable {
  readonly #slots: PayloadSlots | undefined
  readonly #onOver: (sealedDelta: number | null) => void
  readonly #batches = new Map<string, BatchRow>()
  #delta: number | null = null
  /** Given out by `room`, not yet in a batch. */
  #open: Buffer | undefined

  constructor(slots: PayloadSlots | undefined, onOver: (sealedDelta: number | null) => void) {
    this.#slots = slots
    this.#onOver = onOver
  }

  /** For the payload of the next batch; undefined: no more is kept. */
  room(sizeBytes: number): Buffer | undefined {
    if (this.#batches.size < MAX_KEPT) this.#open ??= this.#slots?.take(sizeBytes)
    return this.#open
  }

  /** The same row; a payload in the memory of `room` is kept. */
  keep(row: BatchRow): BatchRow {
    const open = this.#open
    const isOpen = open?.buffer === row.payload.buffer && open.byteOffset === row.payload.byteOffset
    const reference = isOpen ? this.#slots?.give(open) : undefined
    if (!reference) return row
    this.#open = undefined
    // Only the view that was accepted keeps the place taken.
    const payload = this.#slots?.accept({ ...reference, sizeBytes: row.payload.length }) ?? row.payload
    const kept = { ...row, payload }
    this.#batches.set(keyOf(row), kept)
    return kept
  }

  /** The delta has this row in the buffer, and nothing is written to it any more. */
  sealed(delta: number): void {
    this.#delta = delta
  }

  take(place: Place): BatchRow | undefined {
    const kept = this.#batches.get(keyOf(place))
    this.#batches.delete(keyOf(place))
    return kept
  }

  drop(): void {
    for (const { payload } of this.#batches.values()) this.#slots?.release(payload)
    this.#batches.clear()
  }

  [Symbol.dispose](): void {
    if (this.#open) this.#slots?.release(this.#open)
    this.#open = undefined
    this.#onOver(this.#delta)
  }
}

function keyOf({ disk, batch }: Place): string {
  return `${disk}/${batch}`
}
