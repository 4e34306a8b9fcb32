import { describe, expect, test } from 'vitest'
import { type TwoHosts, twoHosts, until, VM } from './two-hosts.ts'

const never = new AbortController().signal
const copyNow = ({ east }: TwoHosts) => east.agent.handlers['replication.copyNow']({ vmId: VM }, never)
const firstPoint = ({ east }: TwoHosts) => until('the first point', () => east.report().ackedSeq >= 1)

test('a VM is synchronized, then delta by delta, and every newest point equals the disks', async () => {
  await using hosts = await twoHosts()
  hosts.write(0, 3, 40, 1)
  hosts.write(1, 0, 10, 2)
  await hosts.protect()
  await firstPoint(hosts)
  expect(await hosts.compareNewest()).toEqual({ seq: 1 })
  expect(hosts.east.report()).toMatchObject({ activity: 'replicating', peerConnected: true, error: null })

  hosts.write(0, 100, 7, 3)
  hosts.write(1, 63, 1, 4)
  const copied = await copyNow(hosts)
  expect(copied.point).toEqual({ epoch: 1, seq: 2 })
  expect(await hosts.compareNewest()).toEqual({ seq: 2 })
  expect(hosts.east.report().lastCycle).toMatchObject({ seq: 2, changedBlocks: 8 })
})

test('the source agent restarts without a coordinator and goes on where it was (I12)', async () => {
  await using hosts = await twoHosts()
  hosts.write(0, 0, 50, 1)
  await hosts.protect()
  await firstPoint(hosts)
  await hosts.east.stop()
  hosts.write(0, 20, 3, 2)
  await hosts.east.start()
  expect((await copyNow(hosts)).point.seq).toBe(2)
  expect(await hosts.compareNewest()).toEqual({ seq: 2 })
})

test('while the target is away the source goes on capturing; later every delta arrives in order', async () => {
  await using hosts = await twoHosts()
  await hosts.protect()
  await firstPoint(hosts)
  await hosts.west.stop()
  const copies = []
  for (const seq of [2, 3, 4]) {
    hosts.write(0, seq, 2, seq)
    copies.push(copyNow(hosts))
    await until(`delta ${seq}`, () => hosts.east.report().sealedSeq === seq)
  }
  expect(hosts.east.report()).toMatchObject({ ackedSeq: 1, activity: 'replicating' })
  await hosts.west.start()
  await Promise.all(copies)
  expect(await hosts.compareNewest()).toEqual({ seq: 4 })
})

describe('the epoch (I5)', () => {
  test('raised while the source sends: from the return on nothing of it is written, the source is fenced, also after a restart', async () => {
    await using hosts = await twoHosts({ diskBytes: [64 << 20] })
    await hosts.protect({ policy: { throttleBytesPerSecond: 10 << 20, compression: false } })
    await firstPoint(hosts)
    hosts.write(0, 0, 900, 7)
    const copied = copyNow(hosts).catch((error) => error.code)
    await until('it sends', async () => (await hosts.west.agent.store.usage(VM)).diskBytes > 5 << 20)
    await hosts.west.agent.handlers['replica.fence']({ vmId: VM, epoch: 2 }, never)
    expect(await copied).toBe('epoch-stale')
    expect(hosts.east.report().activity).toBe('fenced')
    await hosts.east.stop()
    await hosts.east.start()
    expect(hosts.east.report().activity).toBe('fenced')
    await expect(copyNow(hosts)).rejects.toMatchObject({ code: 'epoch-stale' })
    expect((await hosts.west.agent.store.points(VM)).map(({ seq }) => seq)).toEqual([1])
    // The vault may let it send again, at a later epoch.
    await hosts.protect({ epoch: 3, cause: 'reversed' })
    await until('the point of epoch 3', () => hosts.east.report().activity === 'replicating')
    await hosts.compareNewest()
  })

  test('raised while the source was away: it learns so at its return and sends nothing', async () => {
    await using hosts = await twoHosts()
    await hosts.protect()
    await firstPoint(hosts)
    await hosts.east.stop()
    await hosts.west.agent.handlers['replica.fence']({ vmId: VM, epoch: 2 }, never)
    hosts.write(0, 0, 1, 7)
    await hosts.east.start()
    await until('it is fenced', () => hosts.east.report().activity === 'fenced')
    expect(hosts.east.report().error?.code).toBe('epoch-stale')
  })

  test('an order of an older epoch than the fence is refused', async () => {
    await using hosts = await twoHosts()
    await hosts.east.agent.handlers['replication.fence']({ vmId: VM, epoch: 5 }, never)
    await expect(hosts.protect({ epoch: 4 })).rejects.toMatchObject({ code: 'epoch-stale' })
  })
})

test('paused it neither captures nor sends; resumed it goes on; a copy meanwhile says why not', async () => {
  await using hosts = await twoHosts()
  await hosts.protect()
  await firstPoint(hosts)
  const { handlers } = hosts.east.agent
  await handlers['replication.pause']({ vmId: VM }, never)
  expect(hosts.east.report().activity).toBe('paused')
  await expect(copyNow(hosts)).rejects.toMatchObject({ code: 'replication-paused' })
  hosts.write(0, 9, 1, 9)
  await hosts.east.stop()
  await hosts.east.start()
  expect(hosts.east.report().activity).toBe('paused')
  await hosts.east.agent.handlers['replication.resume']({ vmId: VM }, never)
  await copyNow(hosts)
  await hosts.compareNewest()
})

test('an expired ticket stops the transfer with an event; a new one starts it again', async () => {
  await using hosts = await twoHosts()
  await hosts.protect()
  await firstPoint(hosts)
  const { east, west } = hosts
  const renew = (expiresInMs: number) =>
    east.agent.handlers['replication.renewTicket'](
      {
        vmId: VM,
        epoch: 1,
        target: hosts.addressOf(west),
        ticket: hosts.ticket({ epoch: 1, source: east.serverId, target: west.serverId, expiresInMs }),
      },
      never,
    )
  await renew(-1000)
  await west.stop()
  await west.start()
  await until('the refusal', () => east.report().error?.code === 'ticket-expired')
  hosts.write(0, 1, 1, 1)
  const copied = copyNow(hosts)
  await renew(60_000)
  await copied
  expect(east.report().error).toBeNull()
  await hosts.compareNewest()
})

test('stopped for good: the buffer forgets the VM, and the report goes', async () => {
  await using hosts = await twoHosts()
  await hosts.protect()
  await firstPoint(hosts)
  const waiting = hosts.east.agent.handlers['replication.stop']({ vmId: VM }, never)
  await waiting
  expect(await hosts.east.agent.engine.states()).toEqual([])
  expect(() => hosts.east.report()).toThrow('does not replicate')
  await hosts.east.agent.handlers['replication.stop']({ vmId: VM }, never)
})
