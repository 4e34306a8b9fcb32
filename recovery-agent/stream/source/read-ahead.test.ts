import { expect, test } from 'vitest'
import { readAhead } from './read-ahead.ts'

async function* counting(to: number, seen: number[], failAt = -1) {
  try {
    for (let i = 0; i < to; i++) {
      seen.push(i)
      if (i === failAt) throw new Error('broken')
      yield i
    }
  } finally {
    seen.push(-1)
  }
}

async function collect(items: AsyncIterable<number>): Promise<number[]> {
  const all: number[] = []
  for await (const item of items) all.push(item)
  return all
}

test('everything comes, in order', async () => {
  expect(await collect(readAhead(counting(20, []), 3))).toEqual(Array.from({ length: 20 }, (_, i) => i))
})

test('makes as many ahead as it may, and stops the source when the reader leaves', async () => {
  const made: number[] = []
  for await (const item of readAhead(counting(100, made), 3)) {
    await new Promise((resolve) => setImmediate(resolve))
    expect(made.at(-1)).toBe(item + 3)
    if (item === 5) break
  }
  expect(made.at(-1)).toBe(-1)
  expect(made.length).toBeLessThan(12)
})

test('an error comes after what was made before it', async () => {
  const got: number[] = []
  const reading = (async () => {
    for await (const item of readAhead(counting(9, [], 4), 3)) got.push(item)
  })()
  await expect(reading).rejects.toThrow('broken')
  expect(got).toEqual([0, 1, 2, 3])
})
