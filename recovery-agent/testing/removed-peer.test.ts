import { expect, test } from 'vitest'
import type { EventReport } from '#shared/messages/reports.ts'
import { type TestHost, type TwoHosts, twoHosts, until, VM } from './two-hosts.ts'

const never = new AbortController().signal

async function protectedPair(): Promise<TwoHosts> {
  const hosts = await twoHosts()
  await hosts.protect()
  await until('the first point', () => hosts.east.report().ackedSeq >= 1)
  return hosts
}

/** What the coordinator tells `told` when `removed` was removed from the vault. */
const tell = (told: TestHost, removed: readonly TestHost[], generation = 1) =>
  told.agent.handlers['trust.update'](
    { revokedServerIds: removed.map(({ serverId }) => serverId), generation },
    never,
  )

function eventsOf(host: TestHost): EventReport[] {
  host.agent.reports.restart()
  const found: EventReport[] = []
  for (let report = host.agent.reports.take(); report; report = host.agent.reports.take()) {
    host.agent.reports.acknowledge(report.reportSeq)
    if (report.kind === 'event') found.push(JSON.parse(String(report.json)))
  }
  return found
}

const points = async ({ west }: TwoHosts) => (await west.agent.store.points(VM)).map(({ seq }) => seq)

/** A delta that waits for the target, and never gets there. */
async function captureOne({ east, write }: TwoHosts, seq: number): Promise<void> {
  write(0, seq, 3, seq)
  void east.agent.handlers['replication.copyNow']({ vmId: VM }, never).catch(() => {})
  await until(`delta ${seq}`, () => east.report().sealedSeq === seq)
}

test('a source that was removed: its target drops it, refuses it with an event, and takes nothing, also after a restart', async () => {
  await using hosts = await protectedPair()
  const { east, west } = hosts
  await tell(west, [east])
  const event = await until('the refusal', () => eventsOf(west).find((e) => e.code === 'membership-revoked'))
  expect(event).toMatchObject({ severity: 'warning', message: expect.stringContaining('agent-east') })
  await captureOne(hosts, 2)
  // Nobody tells it again: the coordinator is away in this test from the start.
  await west.stop()
  await west.start()
  await until('the refusal after the restart', () =>
    eventsOf(west).some((e) => e.code === 'membership-revoked'),
  )
  expect(await points(hosts)).toEqual([1])
  expect(east.report()).toMatchObject({ ackedSeq: 1, peerConnected: false })

  // A list without it lets it in again, and nothing was lost meanwhile.
  await tell(west, [])
  await until('the delta', () => east.report().ackedSeq === 2)
  expect(await hosts.compareNewest()).toEqual({ seq: 2 })
})

test('a transfer that is under way when its source is removed is not finished', async () => {
  await using hosts = await twoHosts({ diskBytes: [64 << 20] })
  const { east, west } = hosts
  await hosts.protect({ policy: { throttleBytesPerSecond: 10 << 20, compression: false } })
  await until('the first point', () => east.report().ackedSeq >= 1)
  hosts.write(0, 0, 900, 7)
  void east.agent.handlers['replication.copyNow']({ vmId: VM }, never).catch(() => {})
  await until('it sends', async () => (await west.agent.store.usage(VM)).diskBytes > 5 << 20)
  await tell(west, [east])
  const { diskBytes } = await west.agent.store.usage(VM)
  await until('the refusal', () => eventsOf(west).some((e) => e.code === 'membership-revoked'))
  expect((await west.agent.store.usage(VM)).diskBytes).toBe(diskBytes)
  expect(await points(hosts)).toEqual([1])
})

test('a target that was removed: its source hangs up and does not call again, also after a restart', async () => {
  await using hosts = await protectedPair()
  const { east, west } = hosts
  await tell(east, [west])
  await until('the event', () => eventsOf(east).find((e) => e.code === 'membership-revoked'))
  await captureOne(hosts, 2)
  await east.stop()
  await east.start()
  await until('the event after the restart', () =>
    eventsOf(east).some((e) => e.code === 'membership-revoked'),
  )
  expect(east.report()).toMatchObject({ sealedSeq: 2, ackedSeq: 1, peerConnected: false })
  expect(await points(hosts)).toEqual([1])
  expect(eventsOf(west)).toEqual([])
})

test('a list of another generation of the vault key is refused: it would leave out whom we still accept', async () => {
  await using hosts = await protectedPair()
  await tell(hosts.west, [hosts.east])
  await expect(tell(hosts.west, [], 2)).rejects.toMatchObject({ code: 'membership-generation' })
  await until('the refusal', () => eventsOf(hosts.west).some((e) => e.code === 'membership-revoked'))
  expect(hosts.east.report().peerConnected).toBe(false)
})
