/** After an outage: the newest point first, then the older ones that stay, through kills on either side. */
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { CrashPoint } from '#shared/crash-point.ts'
import type { DiskId } from '#shared/ids.ts'
import { type FaultyLink, openFaultyLink } from './faulty-link.ts'
import { compareImages, diskPath, type TwoHosts, twoHosts, until, VM } from './two-hosts.ts'

const never = new AbortController().signal
const MiB = 1 << 20
const copyNow = ({ east }: TwoHosts) => east.agent.handlers['replication.copyNow']({ vmId: VM }, never)
const pointsOf = async ({ west }: TwoHosts) =>
  (await west.agent.store.points(VM)).map(({ seq }) => seq).sort((a, b) => a - b)

let truths: string
beforeEach(() => {
  truths = mkdtempSync(join(tmpdir(), 'hotsite-truth-'))
})
afterEach(() => rmSync(truths, { recursive: true, force: true }))

const truthOf = (seq: number, disk: number) => join(truths, `${seq}-${disk}.raw`)

/** So many cycles, each rewriting a part of the same megabyte and some blocks of its own; what the disks were is kept. */
async function cycles(hosts: TwoHosts, count: number): Promise<Promise<unknown>[]> {
  const copies: Promise<unknown>[] = []
  for (let i = 0; i < count; i++) {
    const seq = hosts.east.report().sealedSeq + 1
    hosts.write(0, 0, 8 + (seq % 8), seq)
    hosts.write(0, 100 + 2 * seq, 2, seq)
    hosts.write(1, seq % 40, 1, seq)
    for (const disk of [0, 1]) copyFileSync(diskPath(hosts.vm, disk), truthOf(seq, disk))
    copies.push(copyNow(hosts).catch(() => {}))
    await until(`delta ${seq}`, () => hosts.east.report().sealedSeq === seq)
  }
  return copies
}

/** Each point of the outage that is there is the VM as it was. */
async function compareAll(hosts: TwoHosts): Promise<void> {
  for (const point of await hosts.west.agent.store.points(VM)) {
    if (point.seq === 1) continue
    for (const [index, { id }] of hosts.vm.file.disks.entries())
      compareImages(
        await hosts.west.agent.store.layerPath(VM, point, id as DiskId),
        truthOf(point.seq, index),
      )
  }
}

const policy = { compression: false, retentionPoints: 15, retentionIntervalSeconds: 0 }

async function away(hosts: TwoHosts, link: FaultyLink, changes: Partial<typeof policy> = {}) {
  await hosts.protect({ via: link.port, policy: { ...policy, ...changes } })
  await until('the first point', () => hosts.east.report().ackedSeq >= 1)
  await hosts.west.stop()
  return await cycles(hosts, 8)
}

test('the newest point is the first that is visible, all others that stay follow, and nothing travels twice', async () => {
  await using hosts = await twoHosts()
  await using link = await openFaultyLink(hosts.west.agent.listen.port)
  const copies = await away(hosts, link)
  const before = link.bytesToTarget
  const seen: number[] = []
  await hosts.west.start()
  await until(
    'all points',
    async () => {
      for (const seq of await pointsOf(hosts)) if (!seen.includes(seq)) seen.push(seq)
      return seen.length === 9
    },
    120_000,
  )
  await Promise.all(copies)
  expect(seen.slice(0, 2)).toEqual([1, 9])
  await until('the end', () => hosts.east.report().owedPoints === 0)
  // Every block of every delta once, as one after the other, and next to nothing for the other order.
  const blocks = [2, 3, 4, 5, 6, 7, 8, 9].reduce((sum, seq) => sum + 8 + (seq % 8) + 2 + 1, 0)
  expect(link.bytesToTarget - before).toBeLessThan(blocks * 65_536 * 1.03)
  await compareAll(hosts)
  const codes = hosts.east.events().map(({ code }) => code)
  expect(codes).toContain('backfilled')
  expect(codes).not.toContain('replication-resync')
  expect(codes).not.toContain('backfill-abandoned')
  await until(
    'an empty buffer',
    () => hosts.east.report().bufferedBytes === 0 || copyNow(hosts).then(() => false),
  )
  const { damagedPoints } = await hosts.west.agent.store.verify({ vmId: VM, percent: 100, seed: 1 })
  expect(damagedPoints).toEqual([])
}, 180_000)

test('new copies go first while older points are brought, and both arrive', async () => {
  await using hosts = await twoHosts()
  await using link = await openFaultyLink(hosts.west.agent.listen.port, { bytesPerSecond: 4 * MiB })
  const copies = await away(hosts, link)
  await hosts.west.start()
  await until('the newest', () => hosts.east.report().ackedSeq === 9)
  expect(hosts.east.report().owedPoints).toBeGreaterThan(0)
  copies.push(...(await cycles(hosts, 1)))
  await until('a newer one', () => hosts.east.report().ackedSeq === 10)
  expect(hosts.east.report().owedPoints).toBeGreaterThan(0)
  await until('the older ones', () => hosts.east.report().owedPoints === 0)
  expect(await pointsOf(hosts)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
  await compareAll(hosts)
  await Promise.all(copies)
}, 180_000)

/** The process dies there: nothing of it is done any more. */
function dyingAt(
  name: string,
  nth: number,
): { readonly crashPoint: CrashPoint; readonly died: Promise<void> } {
  const death = Promise.withResolvers<void>()
  let left = nth
  return {
    died: death.promise,
    crashPoint: (passed) => {
      if (passed !== name || --left > 0) return
      death.resolve()
      throw new Error(`killed at ${name}`)
    },
  }
}

test.each([
  ['source:backfill-promised', 1],
  ['source:point-acknowledged', 1],
  ['source:backfill-acknowledged', 2],
  ['source:backfill-released', 3],
] as const)(
  'the source ends at %s and starts again: no point is missing',
  async (name, nth) => {
    await using hosts = await twoHosts()
    await using link = await openFaultyLink(hosts.west.agent.listen.port)
    await away(hosts, link)
    const { crashPoint, died } = dyingAt(name, nth)
    await hosts.east.stop()
    await hosts.west.start()
    await hosts.east.start({ crashPoint })
    await died
    await hosts.east.stop()
    await hosts.east.start()
    await until('all points', async () => (await pointsOf(hosts)).length >= 9, 120_000)
    await compareAll(hosts)
    expect(hosts.east.events().map(({ code }) => code)).not.toContain('replication-resync')
  },
  90_000,
)

test.each([
  ['target:before-seal', 3],
  ['target:sealed-before-ack', 3],
] as const)(
  'the target ends at %s and starts again: no point is missing',
  async (name, nth) => {
    await using hosts = await twoHosts()
    await using link = await openFaultyLink(hosts.west.agent.listen.port)
    await away(hosts, link)
    const { crashPoint, died } = dyingAt(name, nth)
    await hosts.west.start({ crashPoint })
    await died
    await hosts.west.stop()
    await hosts.west.start()
    await until('all points', async () => (await pointsOf(hosts)).length >= 9, 120_000)
    await compareAll(hosts)
    expect(hosts.east.events().map(({ code }) => code)).not.toContain('replication-resync')
  },
  90_000,
)

test('once they have come, retention does with them what it does with any point', async () => {
  await using hosts = await twoHosts()
  await using link = await openFaultyLink(hosts.west.agent.listen.port)
  const copies = await away(hosts, link, { retentionPoints: 3 })
  await hosts.west.start()
  await Promise.all(copies)
  await until('what stays', async () => (await pointsOf(hosts)).join() === '6,7,8,9')
  await compareAll(hosts)
  await cycles(hosts, 2)
  await until('what stays then', async () => (await pointsOf(hosts)).join() === '8,9,10,11')
  await compareAll(hosts)
}, 180_000)

test('a synchronization that becomes due ends it, and says so', async () => {
  await using hosts = await twoHosts()
  await using link = await openFaultyLink(hosts.west.agent.listen.port, { bytesPerSecond: 2 * MiB })
  await away(hosts, link)
  await hosts.west.start()
  await until('the newest', () => hosts.east.report().ackedSeq === 9 && hosts.east.report().owedPoints > 0)
  await hosts.east.agent.handlers['replication.resync']({ vmId: VM, cause: 'requested' }, never)
  await until('the synchronization', () => hosts.east.report().ackedSeq > 9, 120_000)
  expect(hosts.east.report().owedPoints).toBe(0)
  expect(hosts.east.events().map(({ code }) => code)).toContain('backfill-abandoned')
  await hosts.compareNewest()
}, 180_000)
