import { closeSync, openSync, writeSync } from 'node:fs'
import { expect, test } from 'vitest'
import { JumpingClock } from './jumping-clock.ts'
import { diskPath, twoHosts, until, VM } from './two-hosts.ts'

const never = new AbortController().signal
const MiB = 1 << 20

test('writes unlike the ordinary ones mark their point at the target and are said once, also when they go on', async () => {
  await using hosts = await twoHosts({ diskBytes: [96 * MiB] })
  const copyNow = () => hosts.east.agent.handlers['replication.copyNow']({ vmId: VM }, never)
  await hosts.protect({ policy: { retentionPoints: 2, retentionIntervalSeconds: 0 } })
  await until('the first point', () => hosts.east.report().ackedSeq >= 1)
  for (let cycle = 1; cycle <= 22; cycle++) {
    hosts.write(0, 1000, 16, cycle)
    await copyNow()
  }
  expect(hosts.east.events().map(({ code }) => code)).not.toContain('point-suspect')
  // History survives a restart.
  await hosts.east.stop()
  await hosts.east.start()
  const encrypt = (first: number) => {
    const fd = openSync(diskPath(hosts.vm, 0), 'r+')
    const bytes = new Uint8Array(65_536)
    for (let i = first; i < first + 600; i++)
      writeSync(fd, crypto.getRandomValues(bytes), 0, bytes.length, i * 65_536)
    closeSync(fd)
  }
  encrypt(0)
  const { point } = await copyNow()
  encrypt(600)
  await copyNow()
  const events = hosts.east.events().filter(({ code }) => code === 'point-suspect')
  expect(events).toMatchObject([{ severity: 'warning', message: expect.stringContaining('A hint only') }])
  const points = await hosts.west.agent.store.points(VM)
  const marked = points.find(({ seq }) => seq === point.seq)
  expect(marked?.suspect).toContain('of its size when compressed')
  expect(points.find(({ seq }) => seq === point.seq - 1)?.suspect).toBeNull()
  await hosts.compareNewest()
}, 90_000)

test('what changed in hours without an agent is no jump', async () => {
  const eastClock = new JumpingClock()
  await using hosts = await twoHosts({ diskBytes: [68 * MiB], eastClock })
  const copyNow = () => hosts.east.agent.handlers['replication.copyNow']({ vmId: VM }, never)
  await hosts.protect({ policy: { copyFrequencySeconds: 30 } })
  await until('the first point', () => hosts.east.report().ackedSeq >= 1)
  for (let cycle = 1; cycle <= 20; cycle++) {
    hosts.write(0, 1080, 1, cycle)
    await copyNow()
  }
  await hosts.east.stop()
  hosts.write(0, 0, 1060, 99)
  eastClock.jumpWall(5 * 3_600_000)
  await hosts.east.start()
  const caughtUp = () => hosts.east.report().lastCycle?.changedBlocks === 1060
  await until('the changes', caughtUp)
  expect(hosts.east.events().map(({ code }) => code)).not.toContain('point-suspect')
}, 180_000)

test('a verification reads every block again and its point arrives like any other', async () => {
  await using hosts = await twoHosts()
  const { handlers } = hosts.east.agent
  await expect(handlers['replication.verify']({ vmId: VM, percent: 100 }, never)).rejects.toMatchObject({
    code: 'vm-not-replicated',
  })
  await hosts.protect()
  await until('the first point', () => hosts.east.report().ackedSeq >= 1)
  hosts.write(0, 7, 3, 7)
  const { disks } = await handlers['replication.verify']({ vmId: VM, percent: 100 }, never)
  expect(disks.map(({ checkedBlocks, totalBlocks }) => [checkedBlocks, totalBlocks])).toEqual([
    [320, 320],
    [65, 65],
  ])
  expect(disks.map(({ untrackedBlocks }) => untrackedBlocks)).toEqual([0, 0])
  await until('its point', () => hosts.east.report().ackedSeq === 2)
  await hosts.compareNewest()
  expect(hosts.east.report().proof.map(({ percent }) => percent)).toHaveLength(2)
}, 60_000)
