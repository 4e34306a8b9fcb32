import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Worker } from 'node:worker_threads'
import { describe, expect, test } from 'vitest'
import { BATCH_RAW_BYTES } from './batch.ts'
import { PayloadSlots, payloadMemory } from './payload-slots.ts'

const taken = (slots: PayloadSlots, sizeBytes = 10): Buffer => {
  const payload = slots.take(sizeBytes)
  if (!payload) throw new Error('no slot')
  return payload
}

describe('payload slots', () => {
  test.each([0, 1, 2, 31, 1024, 1025])('memory for %i has exactly that many, none over another', (count) => {
    const slots = new PayloadSlots(payloadMemory(count))
    const all = Array.from({ length: count }, (_, i) => taken(slots, BATCH_RAW_BYTES).fill(i % 251))
    expect(slots.take(1)).toBe(undefined)
    expect(all.every((payload, i) => payload[0] === i % 251 && payload.at(-1) === i % 251)).toBe(true)
  })

  test('nothing larger than a batch fits', () => {
    expect(new PayloadSlots(payloadMemory(2)).take(BATCH_RAW_BYTES + 1)).toBe(undefined)
  })

  test('what is given is taken until the other side releases it, once', () => {
    const memory = payloadMemory(1)
    const [here, there] = [new PayloadSlots(memory), new PayloadSlots(memory)]
    const payload = taken(here)
    payload.write('payload')
    const reference = here.give(payload)
    if (!reference) throw new Error('not in a slot')
    const accepted = there.accept(reference)
    expect(accepted.toString('latin1', 0, 7)).toBe('payload')
    expect(here.take(1)).toBe(undefined)
    there.release(accepted)
    expect(here.take(1)).toBeDefined()
  })

  test('neither a part of a payload nor the same one twice passes for it', () => {
    const slots = new PayloadSlots(payloadMemory(1))
    const payload = taken(slots)
    expect(() => slots.give(payload.subarray(0, 5))).toThrow()
    expect(slots.give(payload)).toEqual({ slot: 0, sizeBytes: 10 })
    expect(() => slots.release(payload)).toThrow()
  })

  test('memory from elsewhere is nobody’s slot', () => {
    const slots = new PayloadSlots(payloadMemory(1))
    expect(slots.give(Buffer.alloc(10))).toBe(undefined)
    slots.release(Buffer.alloc(10))
    expect(slots.take(1)).toBeDefined()
  })

  test('a reference to no slot is refused', () => {
    const slots = new PayloadSlots(payloadMemory(1))
    expect(() => slots.accept({ slot: 1, sizeBytes: 1 })).toThrow()
    expect(() => slots.accept({ slot: 0, sizeBytes: BATCH_RAW_BYTES + 1 })).toThrow()
  })

  test('a payload that is forgotten comes back, one that was given does not come back twice', async () => {
    setFlagsFromString('--expose-gc')
    const collect = runInNewContext('gc') as () => void
    const slots = new PayloadSlots(payloadMemory(2))
    const given = (() => {
      taken(slots)
      return slots.give(taken(slots))
    })()
    expect(given?.slot).toBe(1)
    await expect
      .poll(() => {
        collect()
        return slots.take(1) !== undefined
      })
      .toBe(true)
    // The first place again; the given one still belongs to whoever it was given to.
    expect(slots.take(1)).toBe(undefined)
  })

  test('two threads at once never hold one slot', async () => {
    const memory = payloadMemory(3)
    const program = `
      const { parentPort, workerData } = require('node:worker_threads')
      import(workerData.url).then(({ PayloadSlots }) => {
        const slots = new PayloadSlots(workerData.memory)
        let clashes = 0
        for (let i = 0; i < 200_000; i++) {
          const payload = slots.take(8)
          if (!payload) continue
          payload.writeUInt32LE(workerData.id)
          for (let spin = 0; spin < 3; spin++) if (payload.readUInt32LE() !== workerData.id) clashes++
          slots.release(payload)
        }
        parentPort.postMessage(clashes)
      })`
    const url = new URL('./payload-slots.ts', import.meta.url).href
    const clashes = [1, 2, 3].map(
      (id) =>
        new Promise((resolve, reject) => {
          const worker = new Worker(program, { eval: true, workerData: { url, memory, id } })
          worker.once('message', resolve)
          worker.once('error', reject)
        }),
    )
    expect(await Promise.all(clashes)).toEqual([0, 0, 0])
  })
})
