import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  type AnomalyHistory,
  type CycleSample,
  detectAnomaly,
  MAX_DAYS,
  MAX_RECENT_CYCLES,
  noHistory,
  withSample,
} from './anomaly.ts'

type Cycle = Omit<CycleSample, 'suspect'>

const GiB = 16_384
const MiB = 16
const dayMs = 86_400_000

/** A world that writes: the detector sees each cycle and remembers its own verdict, as the engine does. */
class Machine {
  history: AnomalyHistory = noHistory
  nowMs = 100 * dayMs
  readonly #cycleSeconds: number
  #draw = 1

  constructor(cycleSeconds: number) {
    this.#cycleSeconds = cycleSeconds
  }

  cycle(changedBlocks: number, storedShare: number | null, seconds = this.#cycleSeconds): string | null {
    this.nowMs += seconds * 1000
    const cycle: Cycle = { changedBlocks: Math.round(changedBlocks), storedShare, seconds }
    const found = detectAnomaly(this.history, cycle, this.nowMs)
    this.history = withSample(this.history, { ...cycle, suspect: found !== null }, this.nowMs)
    return found
  }

  /** Office work: some blocks, varying fourfold, compressible by half. */
  ordinary(cycles: number): number {
    let suspect = 0
    for (let i = 0; i < cycles; i++) {
      this.#draw = (this.#draw * 48_271) % 2_147_483_647
      const part = this.#draw / 2_147_483_647
      if (this.cycle(40 + 160 * part, 0.4 + 0.2 * part) !== null) suspect += 1
    }
    return suspect
  }
}

function office(cycleSeconds = 300): Machine {
  const machine = new Machine(cycleSeconds)
  machine.ordinary(MAX_RECENT_CYCLES)
  return machine
}

describe('realistic histories', () => {
  test('a day of office work is never suspect', () => {
    expect(office().ordinary(288)).toBe(0)
  })

  test.each([
    ['all files encrypted at 100 MB/s', 28 * GiB, 0.99, true],
    ['all files encrypted slowly, at the pace of ordinary work', 20 * MiB, 0.98, true],
    ['an operating system update: 3 GiB, the point before it is worth keeping', 3 * GiB, 0.7, true],
    ['a table of 500 MiB reindexed: much, but as compressible as ever', 500 * MiB, 0.45, false],
    ['a database of 20 GiB reindexed: more than ever', 20 * GiB, 0.45, true],
    ['a film of 8 MiB saved', 8 * MiB, 0.99, false],
    ['30 MiB of text written', 30 * MiB, 0.3, false],
    ['nothing at all', 0, null, false],
  ] as const)('%s', (_case, blocks, share, suspect) => {
    expect(office().cycle(blocks, share) !== null).toBe(suspect)
  })

  test('a nightly backup, dense and large: suspect for two nights, a habit from the third on', () => {
    const machine = office()
    const nights = Array.from({ length: 6 }, (_, night) => {
      machine.nowMs = (110 + night) * dayMs
      machine.ordinary(200)
      return machine.cycle((6 + night / 10) * GiB, 0.97) !== null
    })
    expect(nights).toEqual([true, true, false, false, false, false])
  })

  test('an encryption far larger than the nightly backup is no habit', () => {
    const machine = office()
    for (let night = 0; night < 5; night++) {
      machine.nowMs = (110 + night) * dayMs
      machine.cycle(6 * GiB, 0.97)
      machine.ordinary(200)
    }
    machine.nowMs = 120 * dayMs
    expect(machine.cycle(30 * GiB, 0.99)).toContain('blocks changed')
  })

  test('the cycle after an outage of hours holds hours of work: not suspect', () => {
    expect(office().cycle(120 * 12 * 5, 0.5, 5 * 3600)).toBeNull()
  })

  test('an attack of hours stays suspect; a VM that changed for good does not', () => {
    const machine = office(30)
    const hits = Array.from({ length: 50 }, () => machine.cycle(2 * GiB, 0.99) !== null)
    expect(hits.every(Boolean)).toBe(true)
    for (let i = 0; i < MAX_RECENT_CYCLES; i++) machine.cycle(2 * GiB, 0.99)
    expect(machine.cycle(2 * GiB, 0.99)).toBeNull()
  })

  test('a VM whose data never compressed is judged by amount alone', () => {
    const machine = new Machine(300)
    for (let i = 0; i < 60; i++) machine.cycle(100, 0.97)
    expect(machine.cycle(400, 1)).toBeNull()
    expect(machine.cycle(40 * GiB, 1)).toContain('ordinary')
  })

  test('without enough history nothing is said', () => {
    const machine = new Machine(300)
    machine.ordinary(10)
    expect(machine.cycle(20 * GiB, 1)).toBeNull()
  })
})

test('the reason names the figures', () => {
  expect(office().cycle(28 * GiB, 0.99)).toMatch(
    /^458752 blocks changed in 300 s, where about \d+ are ordinary; what was written keeps 99 % of its size when compressed, where \d+ % is ordinary$/,
  )
})

test('the history is bounded, and no history makes a small cycle suspect', () => {
  const cycle = fc.record({
    changedBlocks: fc.nat(1e7),
    storedShare: fc.option(fc.double({ min: 0, max: 1, noNaN: true })),
    seconds: fc.integer({ min: 1, max: 100_000 }),
    suspect: fc.boolean(),
  })
  fc.assert(
    fc.property(fc.array(cycle, { maxLength: 100 }), fc.nat(255), (cycles, changedBlocks) => {
      let nowMs = 0
      let history = noHistory
      for (const one of cycles) {
        nowMs += one.seconds * 1000
        history = withSample(history, one, nowMs)
      }
      expect(history.recent.length).toBeLessThan(2 * MAX_RECENT_CYCLES)
      expect(history.days.length).toBeLessThanOrEqual(MAX_DAYS)
      expect(detectAnomaly(history, { changedBlocks, storedShare: 1, seconds: 30 }, nowMs)).toBeNull()
    }),
  )
})
