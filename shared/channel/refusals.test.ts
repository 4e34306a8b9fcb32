import { describe, expect, it } from 'vitest'
import type { Clock } from '../clock.ts'
import type { ChannelEvent } from './listen.ts'
import { refusals } from './refusals.ts'
import { eventually, testListener, testVault } from './testing.ts'

/** Sleeps end when the test says that a minute has passed. */
function minuteClock(): Clock & { pass(): Promise<void> } {
  let sleepers: (() => void)[] = []
  return {
    now: () => 0,
    monotonicMs: () => 0,
    sleep: (_ms, signal) =>
      new Promise((resolve, reject) => {
        sleepers.push(resolve)
        signal?.addEventListener('abort', () => reject(signal.reason))
      }),
    async pass() {
      const woken = sleepers
      sleepers = []
      for (const wake of woken) wake()
      await Promise.resolve()
    },
  }
}

function noted(limits = { refusalsToldPerMinute: 2, maxTrackedRefusals: 3 }) {
  const told: ChannelEvent[] = []
  const clock = minuteClock()
  const gate = refusals({ limits, clock, tell: (event) => told.push(event) })
  const from = (remote: string, code = 'channel-bad-proof') => gate.note({ code, message: 'refused', remote })
  return { told, clock, gate, from }
}

describe('refusals from one address', () => {
  it('are told a few times a minute, and the rest as one number when it is over', async () => {
    const { told, clock, from } = noted()
    for (let port = 1; port <= 9; port += 1) from(`10.0.0.1:${port}`)
    expect(told).toHaveLength(2)
    await clock.pass()
    expect(told.map(({ message }) => message)).toEqual([
      'refused',
      'refused',
      'refused; so 7 more times within a minute from this address',
    ])
    from('10.0.0.1:10')
    expect(told).toHaveLength(4)
    await clock.pass()
    expect(told).toHaveLength(4)
  })
  it('hide neither another address nor another kind', () => {
    const { told, from } = noted({ refusalsToldPerMinute: 2, maxTrackedRefusals: 9 })
    for (let port = 1; port <= 9; port += 1) from(`10.0.0.1:${port}`)
    from('10.0.0.2:1')
    from('::1:1')
    from('10.0.0.1:1', 'membership-revoked')
    expect(told.slice(2).map(({ remote, code }) => `${code} ${remote}`)).toEqual([
      'channel-bad-proof 10.0.0.2:1',
      'channel-bad-proof ::1:1',
      'membership-revoked 10.0.0.1:1',
    ])
  })
  it('from ever more addresses: no more are remembered than the limit, and no count is lost', () => {
    const { told, gate, from } = noted({ refusalsToldPerMinute: 1, maxTrackedRefusals: 3 })
    for (let address = 1; address <= 5; address += 1)
      for (let i = 0; i < 4; i += 1) from(`10.0.0.${address}:1`)
    expect(told).toHaveLength(5 + 2)
    gate[Symbol.dispose]()
    expect(told.filter(({ message }) => message.includes('so 3 more times'))).toHaveLength(5)
  })
})

it('a listener that is knocked at forty times raises a handful of events, and one with the number left out', async () => {
  const vault = testVault()
  const events: ChannelEvent[] = []
  let refusedCount = 0
  {
    await using there = await testListener(vault, { onRefused: (event) => events.push(event) })
    const stranger = testVault('vault-b').server('stranger')
    for (let i = 0; i < 40; i += 1)
      await there.dial(stranger).catch(() => {
        refusedCount += 1
      })
    expect(refusedCount).toBe(40)
    await eventually(() => events.length === 5, 'five events')
  }
  expect(events).toHaveLength(6)
  expect(events.at(-1)).toMatchObject({
    code: 'membership-wrong-vault',
    message: expect.stringContaining('so 35 more times'),
  })
})
