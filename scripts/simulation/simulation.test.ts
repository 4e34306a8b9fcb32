import { expect, test, vi } from 'vitest'
import { runHistory } from './history.ts'
import { runOutage } from './outage.ts'
import { planHistory } from './plan.ts'
import { crashNames } from './world.ts'

// Whole histories, also on a machine that has much else to do.
vi.setConfig({ testTimeout: 300_000 })

test('one seed is one history: every event, byte and instant again', async () => {
  const once = await runHistory({ seed: 9 })
  const again = await runHistory({ seed: 9 })
  expect(again.digest).toBe(once.digest)
  expect((await runHistory({ seed: 10 })).digest).not.toBe(once.digest)
  expect(once.violations).toEqual([])
  expect(once.pointsVerified).toBeGreaterThan(10)
})

test('consecutive seeds walk through every crash point', () => {
  const planned = Array.from(
    { length: crashNames.length },
    (_, seed) => planHistory(seed, crashNames).crashes,
  )
  expect(new Set(planned.flat().map(({ name }) => name))).toEqual(new Set(crashNames))
})

test('an hour without the line, a copy every thirty seconds: nothing is copied anew, nothing is lost, the newest data comes first', async () => {
  const { copiesMeanwhile, secondsUntilCurrent, missing, violations } = await runOutage(1)
  expect(violations).toEqual([])
  expect(copiesMeanwhile).toBeGreaterThan(100)
  expect(missing).toEqual([])
  // The whole backlog in its order would take ten times as long on this line.
  expect(secondsUntilCurrent).toBeLessThan(150)
})

test('a full buffer with somebody waiting for a copy: the source waits for room and does not try without a pause', async () => {
  // Two VMs, a buffer of 2 MiB, a throttle, and a copy that is asked for while the line is silent.
  expect((await runHistory({ seed: 799 })).violations).toEqual([])
})
