import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type VmId, vmId } from '#shared/ids.ts'
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
    [
      'a promise that can be kept before one that is broken',
      [contender('late', 4, 0), contender('b', 90, 5)],
      1,
      'b',
    ],
    [
      'what is late before a synchronization',
      [contender('sync', null, 0), contender('late', 4, 5)],
      1,
      'late',
    ],
    ['among the late the longest without a turn', [contender('a', 1, 3), contender('b', 4, 2)], 1, 'b'],
    ['among equals the longest without a turn', [contender('a', 10, 3), contender('b', 10, 2)], 1, 'b'],
    ['now and then whoever waited longest', [contender('sync', null, 1), contender('b', 10, 5)], 4, 'sync'],
  ])('%s', (_case, contenders, turn, expected) => {
    expect(nextTurn(contenders, turn, 5)?.vmId).toBe(expected)
  })

  test('nobody starves: everyone who keeps asking gets a turn within a bounded number of turns', () => {
    fc.assert(
      fc.property(fc.array(fc.option(fc.nat(1000)), { minLength: 1, maxLength: 8 }), (deadlines) => {
        const last = deadlines.map(() => 0)
        for (let turn = 1; turn <= deadlines.length * FAIR_TURN_EVERY; turn++) {
          const chosen = nextTurn(
            deadlines.map((deadlineMs, index) => contender(`vm${index}`, deadlineMs, last[index] ?? 0)),
            turn,
            500,
          )
          last[Number(chosen?.vmId.slice(2))] = turn
        }
        expect(Math.min(...last)).toBeGreaterThan(0)
      }),
    )
  })
})

test('turns do not overlap, and one that fails or is given up does not block the next', async () => {
  const turns = new Turns(() => 0)
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

/**
 * A link of one batch a tick. A VM seals `batches` every `period` ticks and wants them over within twice that time; four
 * have backlogs without end and are late already, one synchronizes.
 */
async function shareLink(small: readonly { batches: number; period: number }[], ticks: number) {
  let now = 0
  const turns = new Turns(() => now)
  const never = new AbortController().signal
  const gates: (() => void)[] = []
  const sent = new Map<VmId, number>()
  /** A ready VM waits for its turn; the turn lasts until the tick ends. */
  const send = async (name: string, deadlineMs: number | null) => {
    const id = vmId.parse(name)
    await turns.take({ vmId: id, deadlineMs }, never, async () => {
      await new Promise<void>((resolve) => gates.push(resolve))
      sent.set(id, (sent.get(id) ?? 0) + 1)
    })
  }
  let over = false
  const endless = async (name: string, deadlineMs: number | null) => {
    while (!over) await send(name, deadlineMs)
  }
  let lateTicks = 0
  const cycles = small.map(async ({ batches, period }, i) => {
    for (let sealed = 0; !over; sealed += period) {
      while (now < sealed && !over) await new Promise((resolve) => setImmediate(resolve))
      for (let batch = 0; batch < batches && !over; batch++) await send(`small-${i}`, sealed + 2 * period)
      if (!over) lateTicks = Math.max(lateTicks, now - (sealed + 2 * period))
    }
  })
  const others = [...['a', 'b', 'c', 'd'].map((name) => endless(`huge-${name}`, 0)), endless('sync', null)]
  for (; now < ticks; now++) {
    await new Promise((resolve) => setImmediate(resolve))
    await new Promise((resolve) => setImmediate(resolve))
    gates.shift()?.()
  }
  over = true
  const ending = Promise.all([...cycles, ...others])
  let ended = false
  void ending.then(() => {
    ended = true
  })
  while (!ended) {
    gates.shift()?.()
    await new Promise((resolve) => setImmediate(resolve))
  }
  const least = (name: string) =>
    Math.min(...[...sent].filter(([id]) => id.startsWith(name)).map(([, batches]) => batches))
  return { lateTicks, huge: least('huge'), sync: least('sync') }
}

test('beside backlogs without end and a synchronization, small VMs keep their frequency and nobody gets nothing', async () => {
  // Together up to five eighths of the link: more than the fair turns alone would leave them.
  const vm = fc.record({ batches: fc.integer({ min: 3, max: 5 }), period: fc.integer({ min: 40, max: 60 }) })
  await fc.assert(
    fc.asyncProperty(fc.array(vm, { minLength: 5, maxLength: 5 }), async (small) => {
      const ticks = 400
      const { lateTicks, huge, sync } = await shareLink(small, ticks)
      expect(lateTicks).toBeLessThanOrEqual(0)
      expect(huge).toBeGreaterThan(ticks / 40)
      expect(sync).toBeGreaterThan(ticks / FAIR_TURN_EVERY / (small.length + 7))
    }),
    { numRuns: 20 },
  )
})
