/**
 * Places of 1 MiB for payload, in memory that two threads share: what one of them fills the other one sends or writes,
 * and nothing is copied, moved or left to the collector, which would otherwise run for every 64 MiB that pass.
 *
 * A place belongs to one thread at a time: `take` it, fill it, `give` it to the other thread, which `accept`s it and
 * `release`s it when it is through. Places run out before memory does: then `take` answers undefined and the caller uses
 * any other memory. One that is forgotten on the way, with a connection for example, comes back when the collector
 * finds its view gone: whoever keeps a part of the payload must keep the whole view as well.
 */
import { assert } from '../assert.ts'
import { openPageOffset, PAGE_BYTES } from '../memory-address.ts'
import { BATCH_RAW_BYTES } from './batch.ts'

/** What crosses to the other thread. */
export interface SlotReference {
  readonly slot: number
  readonly sizeBytes: number
}

const FREE = 0
const TAKEN = 1

/** The memory begins with: where the first slot is, how many there are, and a flag for each. */
const HEADER_NUMBERS = 2

/** Slots lie on whole pages, so that they can be written without a copy in between. */
export function payloadMemory(slotCount: number): SharedArrayBuffer {
  const headerBytes = (HEADER_NUMBERS + slotCount) * 4
  const memory = new SharedArrayBuffer(headerBytes + PAGE_BYTES + slotCount * BATCH_RAW_BYTES)
  const startsAt = openPageOffset()(new Uint8Array(memory)) ?? 0
  const firstByte = Math.ceil((startsAt + headerBytes) / PAGE_BYTES) * PAGE_BYTES - startsAt
  new Int32Array(memory, 0, HEADER_NUMBERS).set([firstByte, slotCount])
  return memory
}

export class PayloadSlots {
  readonly #memory: SharedArrayBuffer
  readonly #flags: Int32Array
  readonly #firstByte: number
  readonly #forgotten = new FinalizationRegistry<number>((slot) => this.#free(slot))

  /** Over memory of `payloadMemory`; one in each thread. */
  constructor(memory: SharedArrayBuffer) {
    const [firstByte = 0, slotCount = 0] = new Int32Array(memory, 0, HEADER_NUMBERS)
    this.#memory = memory
    this.#flags = new Int32Array(memory, HEADER_NUMBERS * 4, slotCount)
    this.#firstByte = firstByte
  }

  /** The first free one, so that memory which was never needed is never touched. */
  take(sizeBytes: number): Buffer | undefined {
    if (sizeBytes > BATCH_RAW_BYTES) return undefined
    for (let slot = 0; slot < this.#flags.length; slot++)
      if (Atomics.compareExchange(this.#flags, slot, FREE, TAKEN) === FREE)
        return this.accept({ slot, sizeBytes })
    return undefined
  }

  /** The other thread's from now on; undefined: it lies elsewhere. */
  give(payload: Buffer): SlotReference | undefined {
    const slot = this.#slotOf(payload)
    if (slot === undefined) return undefined
    // A part of it would not keep the place taken: the collector would find the whole one gone while the part is used.
    assert(this.#forgotten.unregister(payload), 'the very view that was taken or accepted, once')
    return { slot, sizeBytes: payload.length }
  }

  /** What the other thread gave. */
  accept({ slot, sizeBytes }: SlotReference): Buffer {
    assert(slot >= 0 && slot < this.#flags.length && sizeBytes <= BATCH_RAW_BYTES, 'a slot there is')
    const payload = Buffer.from(this.#memory, this.#firstByte + slot * BATCH_RAW_BYTES, sizeBytes)
    this.#forgotten.register(payload, slot, payload)
    return payload
  }

  /** Nobody reads it any more. Nothing happens to a payload that lies elsewhere. */
  release(payload: Buffer): void {
    const given = this.give(payload)
    if (given) this.#free(given.slot)
  }

  #free(slot: number): void {
    Atomics.store(this.#flags, slot, FREE)
  }

  #slotOf(payload: Buffer): number | undefined {
    if (payload.buffer !== this.#memory) return undefined
    const offset = payload.byteOffset - this.#firstByte
    assert(offset >= 0 && offset % BATCH_RAW_BYTES === 0, 'a payload begins where its slot does')
    return offset / BATCH_RAW_BYTES
  }
}
