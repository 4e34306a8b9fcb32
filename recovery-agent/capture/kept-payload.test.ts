import { expect, test } from 'vitest'
import { PayloadSlots, payloadMemory } from '#shared/blocks/payload-slots.ts'
import { type KeptPayload, NewestPayload } from './kept-payload.ts'

const MiB = 2 ** 20
const slotCount = 40
const openSlots = () => new PayloadSlots(payloadMemory(slotCount))

/** Takes every place that is free, and gives all of them back. */
function freePlaces(slots: PayloadSlots): number {
  const taken: Buffer[] = []
  for (let slot = slots.take(MiB); slot; slot = slots.take(MiB)) taken.push(slot)
  for (const slot of taken) slots.release(slot)
  return taken.length
}

/** A batch whose payload is `bytes` bytes of `fill`, put together where `kept` says. */
function pack(kept: KeptPayload, { batch, bytes, fill }: { batch: number; bytes: number; fill: number }) {
  const room = kept.room(MiB)
  const payload = (room ?? Buffer.alloc(MiB)).fill(fill).subarray(0, bytes)
  const row = kept.keep({ disk: 0, batch, blockIndexes: [batch], storedBytes: [bytes], payload })
  return { isKept: room !== undefined, row }
}

test('a batch of a sealed delta is given away once, as it was packed', () => {
  const newest = new NewestPayload(openSlots())
  {
    using kept = newest.open()
    pack(kept, { batch: 0, bytes: 1000, fill: 7 })
    pack(kept, { batch: 1, bytes: MiB, fill: 8 })
    kept.sealed(3)
    expect(newest.take({ delta: 3, disk: 0, batch: 0 })).toBeUndefined()
  }
  expect(newest.take({ delta: 2, disk: 0, batch: 0 })).toBeUndefined()
  expect(newest.take({ delta: 3, disk: 0, batch: 0 })?.payload).toEqual(Buffer.alloc(1000, 7))
  expect(newest.take({ delta: 3, disk: 0, batch: 1 })?.payload).toEqual(Buffer.alloc(MiB, 8))
  expect(newest.take({ delta: 3, disk: 0, batch: 0 })).toBeUndefined()
})

test('of a delta that was not sealed nothing stays', () => {
  const slots = openSlots()
  const newest = new NewestPayload(slots)
  {
    using kept = newest.open()
    pack(kept, { batch: 0, bytes: 1000, fill: 7 })
    kept.room(MiB)
    expect(freePlaces(slots)).toBe(slotCount - 2)
  }
  expect(freePlaces(slots)).toBe(slotCount)
})

test('a cycle beside another keeps nothing, and touches nothing of the other', () => {
  const newest = new NewestPayload(openSlots())
  {
    using kept = newest.open()
    const { row } = pack(kept, { batch: 0, bytes: 1000, fill: 7 })
    {
      using beside = newest.open()
      expect(pack(beside, { batch: 0, bytes: 1000, fill: 9 }).isKept).toBe(false)
      beside.sealed(4)
    }
    expect(row.payload).toEqual(Buffer.alloc(1000, 7))
    kept.sealed(3)
  }
  expect(newest.take({ delta: 4, disk: 0, batch: 0 })).toBeUndefined()
  expect(newest.take({ delta: 3, disk: 0, batch: 0 })?.payload).toEqual(Buffer.alloc(1000, 7))
})

test('what is kept leaves places to others, and all of it comes back with the next delta', () => {
  const slots = openSlots()
  const newest = new NewestPayload(slots)
  {
    using kept = newest.open()
    const packed = Array.from({ length: slotCount }, (_, batch) => pack(kept, { batch, bytes: MiB, fill: 1 }))
    expect(packed.filter(({ isKept }) => isKept)).toHaveLength(32)
    kept.sealed(3)
  }
  expect(freePlaces(slots)).toBe(slotCount - 32)
  using _next = newest.open()
  expect(freePlaces(slots)).toBe(slotCount)
})
