import { expect, test } from 'vitest'
import { openFaultyLink } from './faulty-link.ts'
import { type TwoHosts, twoHosts, until, VM } from './two-hosts.ts'

const never = new AbortController().signal
const copyNow = ({ east }: TwoHosts) => east.agent.handlers['replication.copyNow']({ vmId: VM }, never)
const firstPoint = ({ east }: TwoHosts) => until('the first point', () => east.report().ackedSeq >= 1)

test('pulled in the middle of a synchronization, it goes on by itself and sends only what is missing (I7)', async () => {
  await using hosts = await twoHosts({ diskBytes: [64 << 20] })
  await using link = await openFaultyLink(hosts.west.agent.listen.port)
  hosts.write(0, 0, 1000, 1)
  // Throttled, so that the middle can be met.
  await hosts.protect({ via: link.port, policy: { throttleBytesPerSecond: 20 << 20, compression: false } })
  await until('half of it', () => link.bytesToTarget > 30 << 20)
  link.cut()
  await firstPoint(hosts)
  expect(await hosts.compareNewest()).toEqual({ seq: 1 })
  expect(link.bytesToTarget).toBeLessThan(90 << 20)
})

test('the target agent restarts in the middle of a delta: the delta is resumed, not repeated', async () => {
  await using hosts = await twoHosts({ diskBytes: [64 << 20] })
  await using link = await openFaultyLink(hosts.west.agent.listen.port)
  await hosts.protect({ via: link.port, policy: { throttleBytesPerSecond: 20 << 20, compression: false } })
  await firstPoint(hosts)
  hosts.write(0, 0, 900, 7)
  const copied = copyNow(hosts)
  const before = link.bytesToTarget
  await until('half of it', () => link.bytesToTarget - before > 25 << 20)
  await hosts.west.stop()
  await hosts.west.start()
  expect((await copied).point.seq).toBe(2)
  expect(await hosts.compareNewest()).toEqual({ seq: 2 })
  expect(link.bytesToTarget - before).toBeLessThan(75 << 20)
})

test('sealed at the target but never acknowledged: the point appears once and the cursor follows (I2, I4)', async () => {
  await using hosts = await twoHosts()
  await using link = await openFaultyLink(hosts.west.agent.listen.port)
  let seals = 0
  await hosts.west.stop()
  await hosts.west.start({
    crashPoint(name) {
      if (name !== 'target:sealed-before-ack') return
      seals += 1
      if (seals === 2) link.cut()
    },
  })
  await hosts.protect({ via: link.port, policy: { retentionPoints: 15 } })
  await firstPoint(hosts)
  hosts.write(0, 5, 1, 5)
  expect((await copyNow(hosts)).point.seq).toBe(2)
  const points = await hosts.west.agent.store.points(VM)
  expect([points.map(({ seq }) => seq), seals]).toEqual([[1, 2], 2])
  expect(await hosts.compareNewest()).toEqual({ seq: 2 })
})

test('a delta that arrives wrong is refused and repaired by comparing hashes; points stay (I3, I7)', async () => {
  await using hosts = await twoHosts({ diskBytes: [64 << 20] })
  await hosts.protect({ policy: { retentionPoints: 15, compression: false } })
  await firstPoint(hosts)
  hosts.write(0, 0, 800, 1)
  await copyNow(hosts)
  await hosts.east.stop()
  let spoiled = 0
  await hosts.east.start({
    overrides: {
      wrapEngine: (engine) => ({
        ...engine,
        async readBatch(request) {
          const batch = await engine.readBatch(request)
          if (batch.payload.length > 0 && ++spoiled === 1) batch.payload[100] = (batch.payload[100] ?? 0) ^ 1
          return batch
        },
      }),
    },
  })
  hosts.write(0, 500, 20, 9)
  await copyNow(hosts)
  expect(spoiled).toBeGreaterThan(0)
  const points = await hosts.west.agent.store.points(VM)
  expect(points.map(({ attested }) => attested)).toEqual([true, true, true])
  await hosts.compareNewest()
  expect(hosts.east.report().lastCycle).toMatchObject({ changedBlocks: 20 })
})
