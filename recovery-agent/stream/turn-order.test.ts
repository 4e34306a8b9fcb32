import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { vmId } from '#shared/ids.ts'
import { FAIR_TURN_EVERY, nextTurn } from './turn-order.ts'
import { Turns } from './turns.ts'

const contender = (name: string, deadlineMs: number | null, lastTurn: number) => ({
  vmId: vmId.parse(name),
  deadlineMs,
  lastTurn,
})

describe('who sends the next batch', () => {
  test.each([
    ['the earliest deadline', [contender('a', 20, 0), contender('b', 10, 5)], 1, 'b'],
    ['a promise before a synchronization', [contender('sync', null, 0), contender('b', 10, 5)], 1, 'b'],
    ['among equals the longest without a turn', [contender('a', 10, 3), contender('b', 10, 2)], 1, 'b'],
    ['now and then whoever waited longest', [contender('sync', null, 1), contender('b', 10, 5)], 4, 'sync'],
  ])('%s', (_case, contenders, turn, expected) => {
    expect(nextTurn(contenders, turn)?.vmId).toBe(expected)
  })

  test('nobody starves: everyone who keeps asking gets a turn within a bounded number of turns', () => {
    fc.assert(
      fc.property(fc.array(fc.option(fc.nat(1000)), { minLength: 1, maxLength: 8 }), (deadlines) => {
        const last = deadlines.map(() => 0)
        for (let turn = 1; turn <= deadlines.length * FAIR_TURN_EVERY; turn++) {
          const chosen = nextTurn(
            deadlines.map((deadlineMs, index) => contender(`vm${index}`, deadlineMs, last[index] ?? 0)),
            turn,
          )
          last[Number(chosen?.vmId.slice(2))] = turn
        }
        expect(Math.min(...last)).toBeGreaterThan(0)
      }),
    )
  })
})

test('turns do not overlap, and one that fails or is given up does not block the next', async () => {
  const turns = new Turns()
  const signal = new AbortController().signal
  let inside = 0
  const log: string[] = []
  const take = (name: string, fails = false) =>
    turns.take({ vmId: vmId.parse(name), deadlineMs: null }, signal, async () => {
      expect(++inside).toBe(1)
      await new Promise((resolve) => setImmediate(resolve))
      inside -= 1
      log.push(name)
      if (fails) throw new Error('the link broke')
    })
  const given = new AbortController()
  const first = take('a', true)
  const abandoned = turns.take({ vmId: vmId.parse('x'), deadlineMs: null }, given.signal, async () => {
    log.push('x')
  })
  const second = take('b')
  const refused = [
    expect(first).rejects.toThrow('the link broke'),
    expect(abandoned).rejects.toThrow('given up'),
  ]
  given.abort(new Error('given up'))
  await Promise.all(refused)
  await second
  expect(log).toEqual(['a', 'b'])
})
