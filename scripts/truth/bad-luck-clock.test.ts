/** Clocks that jump by hours: copies go on at their frequency, the order is that of numbers, and the skew is shown (I14). */
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, it } from 'vitest'
import {
  type BadLuckLab,
  badLuckLab,
  eventsOf,
  expectReplicationGoesOn,
  folderOf,
  hotsite,
  newestOf,
  pointsOf,
  protectGuest,
  serversOf,
  stopDaemon,
  until,
  vmOf,
} from './bad-luck-lab.ts'

const hourMs = 3_600_000
let site: BadLuckLab
beforeAll(async () => {
  site = await badLuckLab()
  for (const daemon of ['agent-host-a1', 'agent-host-b1']) {
    await stopDaemon(site.lab, daemon)
    startShiftable(daemon)
  }
  await until('both agents are back', async () =>
    (await serversOf(site.lab)).every((server) => server.connected),
  )
  await protectGuest(site.lab)
})
afterAll(async () => {
  await site[Symbol.asyncDispose]()
})

const preload = fileURLToPath(new URL('./bad-luck-clock-shift.ts', import.meta.url))
const shiftFile = (daemon: string) => join(folderOf(site.lab, daemon), 'clock-shift')
const startShiftable = (daemon: string) =>
  site.lab.restart(daemon, {
    NODE_OPTIONS: `--import=${preload}`,
    HOTSITE_CLOCK_SHIFT: shiftFile(daemon),
  })

const setClock = (daemon: string, shiftMs: number) => writeFileSync(shiftFile(daemon), String(shiftMs))

const skewOf = async (name: string) =>
  (await serversOf(site.lab)).find((server) => server.name === name)?.clockSkewMs ?? 0

it.each([
  ['agent-host-a1', 6],
  ['agent-host-b1', -6],
])('%s jumps by %i hours while it runs', async (daemon, hours) => {
  const name = daemon.slice('agent-'.length)
  const resyncs = (await eventsOf(site.lab)).filter(({ code }) => code.startsWith('resync')).length
  await expectReplicationGoesOn(site.lab)
  const before = await pointsOf(site.lab)
  setClock(daemon, hours * hourMs)
  // At their frequency: three points take three cycles of two seconds, not hours.
  for (let n = 0; n < 3; n++) await expectReplicationGoesOn(site.lab)
  await until('the skew is measured', async () => Math.abs((await skewOf(name)) - hours * hourMs) < 60_000)
  expect((await hotsite(site.lab, 'server', 'list')).out).toMatch(
    hours > 0 ? /\s(6 h|5 h 59)/ : /-(6 h|5 h 59)/,
  )
  expect((await hotsite(site.lab, 'status')).out).toMatch(`the clock of agent ${name} is off by 6 h`)
  expect((await eventsOf(site.lab)).some(({ code }) => code === 'clock-skew')).toBe(true)

  const points = await pointsOf(site.lab)
  const bySeq = [...points].sort((a, b) => b.seq - a.seq)
  expect(points.map(({ name }) => name)).toEqual(bySeq.map(({ name }) => name))
  // Retention by amount: the newest and up to six more, and the newest one before the jump among them.
  expect(points.length).toBeGreaterThanOrEqual(4)
  expect(points.length).toBeLessThanOrEqual(8)
  expect(points.map(({ seq }) => seq)).toContain(newestOf(before)?.seq)
  const vm = await vmOf(site.lab)
  expect(vm.state).toBe('protected')
  expect(vm.dataAgeMs).toBeLessThan(60_000)

  rmSync(shiftFile(daemon))
  for (let n = 0; n < 2; n++) await expectReplicationGoesOn(site.lab)
  await until('the clocks agree', async () => Math.abs(await skewOf(name)) < 60_000)
  expect((await vmOf(site.lab)).dataAgeMs).toBeLessThan(60_000)
  expect((await eventsOf(site.lab)).filter(({ code }) => code.startsWith('resync'))).toHaveLength(resyncs)
})

it('an agent that starts hours ahead, and again hours behind, copies at once', async () => {
  for (const hours of [6, -6]) {
    setClock('agent-host-a1', hours * hourMs)
    await site.lab.kill('agent-host-a1')
    startShiftable('agent-host-a1')
    const first = await expectReplicationGoesOn(site.lab)
    expect((await expectReplicationGoesOn(site.lab)).seq).toBeGreaterThan(first.seq)
  }
})
