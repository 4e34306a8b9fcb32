import { describe, expect, test } from 'vitest'
import { limits } from '../limits.ts'
import { openFaultyLink } from './faulty-link.ts'
import { JumpingClock } from './jumping-clock.ts'
import { type TwoHosts, twoHosts, until, VM } from './two-hosts.ts'

const never = new AbortController().signal
const MiB = 1 << 20
const copyNow = ({ east }: TwoHosts) => east.agent.handlers['replication.copyNow']({ vmId: VM }, never)
const firstPoint = ({ east }: TwoHosts) => until('the first point', () => east.report().ackedSeq >= 1)
const approve = ({ east }: TwoHosts) => east.agent.handlers['replication.approveResync']({ vmId: VM }, never)
const diverge = ({ east }: TwoHosts) =>
  east.agent.handlers['replication.resync']({ vmId: VM, cause: 'diverged' }, never)
const resyncEvents = ({ east }: TwoHosts) => east.events().filter(({ code }) => code === 'replication-resync')
const pointsOf = async ({ west }: TwoHosts) => (await west.agent.store.points(VM)).map(({ seq }) => seq)

/** Always closed: yesterday, for an hour. */
function closedWindow() {
  const days = (['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat'] as const).slice()
  const yesterday = days[(new Date().getUTCDay() + 6) % 7] ?? 'sun'
  return { days: [yesterday], from: '00:00', to: '00:01' }
}

describe('a resynchronization nobody asked for (I7)', () => {
  test('waits for approval with cause and estimate, said once, through a restart; points stay and nothing bulk travels', async () => {
    await using hosts = await twoHosts({ diskBytes: [64 * MiB] })
    await using link = await openFaultyLink(hosts.west.agent.listen.port)
    hosts.write(0, 0, 400, 1)
    await hosts.protect({ via: link.port, policy: { resync: 'ask', compression: false, retentionPoints: 5 } })
    await firstPoint(hosts)
    hosts.write(0, 100, 50, 2)
    const before = link.bytesToTarget
    await diverge(hosts)
    const estimated = () => {
      const { resync } = hosts.east.report()
      return resync?.estimate && resync.waitsFor === 'approval' ? resync : undefined
    }
    const resync = await until('the estimate', estimated)
    expect(resync).toMatchObject({ cause: 'diverged', startsAtMs: null })
    expect(resync.estimate).toMatchObject({ compareBytes: 400 * 65_536, sendBytes: 50 * 65_536 })
    expect(hosts.east.report()).toMatchObject({ activity: 'waiting', cause: 'diverged', progress: null })
    await expect(copyNow(hosts)).rejects.toMatchObject({ code: 'resync-waits' })

    await hosts.east.stop()
    await hosts.east.start()
    await until('the estimate after a restart', estimated)
    expect(resyncEvents(hosts)).toMatchObject([
      {
        severity: 'warning',
        message: expect.stringMatching(/cause diverged.*sends about 3\.1 MiB.*approval/),
      },
    ])
    expect(link.bytesToTarget - before).toBeLessThan(1 * MiB)
    expect(await pointsOf(hosts)).toEqual([1])

    await approve(hosts)
    await until('the point', () => hosts.east.report().activity === 'replicating')
    expect(hosts.east.report().resync).toBeNull()
    expect(link.bytesToTarget - before).toBeLessThan(5 * MiB)
    const { seq } = await hosts.compareNewest()
    expect(await pointsOf(hosts)).toEqual([1, seq])
    await expect(approve(hosts)).rejects.toMatchObject({ code: 'resync-not-waiting' })
    expect(resyncEvents(hosts)).toHaveLength(1)
  }, 60_000)

  test('waits for its window, which a new policy may open', async () => {
    await using hosts = await twoHosts()
    hosts.write(0, 0, 30, 1)
    const policy = { resync: 'window' as const, resyncWindow: closedWindow() }
    await hosts.protect({ policy })
    await firstPoint(hosts)
    await diverge(hosts)
    const waiting = await until('the wait', () => {
      const { resync } = hosts.east.report()
      return resync?.waitsFor === 'window' ? resync : undefined
    })
    expect(waiting.startsAtMs).toBeGreaterThan(Date.now())
    await hosts.protect({ policy: { resync: 'now' } })
    await until('the point', () => hosts.east.report().activity === 'replicating')
    await hosts.compareNewest()
  })

  test('begins at once by the ordinary policy, and says what it costs all the same', async () => {
    await using hosts = await twoHosts()
    hosts.write(0, 0, 30, 1)
    await hosts.protect()
    await firstPoint(hosts)
    expect(resyncEvents(hosts)).toEqual([])
    hosts.write(0, 5, 10, 2)
    await diverge(hosts)
    await until('the point', () => hosts.east.report().activity === 'replicating')
    const message = expect.stringMatching(/cause diverged.*compares .* sends about .*begins at once/)
    expect(resyncEvents(hosts)).toMatchObject([{ message }])
    await hosts.compareNewest()
  })

  test('asked for by a person it waits for nobody', async () => {
    await using hosts = await twoHosts()
    await hosts.protect({ policy: { resync: 'ask' } })
    await firstPoint(hosts)
    await hosts.east.agent.handlers['replication.resync']({ vmId: VM, cause: 'requested' }, never)
    await until('the point', () => hosts.east.report().ackedSeq >= 2)
    expect(resyncEvents(hosts)).toMatchObject([{ severity: 'info' }])
  })
})

test('the first synchronization begins at its time, also after a restart in between', async () => {
  const clock = new JumpingClock()
  await using hosts = await twoHosts({ eastClock: clock })
  hosts.write(0, 0, 30, 1)
  const notBeforeMs = Date.now() + 600_000
  await hosts.protect({ notBeforeMs })
  const waiting = () => {
    const { resync } = hosts.east.report()
    return resync?.waitsFor === 'start-time' && resync.estimate ? resync : undefined
  }
  expect(await until('the estimate', waiting)).toMatchObject({ startsAtMs: notBeforeMs })
  await hosts.east.stop()
  await hosts.east.start()
  expect(await until('the estimate after a restart', waiting)).toMatchObject({ cause: 'initial' })
  expect(hosts.east.report().ackedSeq).toBe(0)
  clock.jumpWall(600_000)
  clock.jump(limits.timetableLookMs)
  await firstPoint(hosts)
  await hosts.compareNewest()
  expect(resyncEvents(hosts)).toMatchObject([
    { severity: 'info', message: expect.stringContaining('start time') },
  ])
}, 60_000)
