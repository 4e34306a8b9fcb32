import { expect, test } from 'vitest'
import { dialChannel } from '#shared/channel/dial.ts'
import { replicationPolicy } from '#shared/messages/policy.ts'
import { openFaultyLink } from './faulty-link.ts'
import { JumpingClock } from './jumping-clock.ts'
import { type TwoHosts, twoHosts, until, VM } from './two-hosts.ts'

const never = new AbortController().signal
const MiB = 1 << 20
const copyNow = ({ east }: TwoHosts) => east.agent.handlers['replication.copyNow']({ vmId: VM }, never)
const firstPoint = ({ east }: TwoHosts) => until('the first point', () => east.report().ackedSeq >= 1)
const pointsOf = async ({ west }: TwoHosts) => (await west.agent.store.points(VM)).map(({ seq }) => seq)

/** So many cycles while the target is away, each rewriting the same megabyte and one block of its own. */
async function cyclesAway(hosts: TwoHosts, count: number): Promise<Promise<unknown>[]> {
  const copies: Promise<unknown>[] = []
  for (let i = 0; i < count; i++) {
    const seq = hosts.east.report().sealedSeq + 1
    hosts.write(0, 0, 16, seq)
    hosts.write(0, 100 + i, 1, seq)
    copies.push(copyNow(hosts))
    await until(`delta ${seq}`, () => hosts.east.report().sealedSeq === seq)
  }
  return copies
}

test('after an outage what retention would drop on arrival travels inside what stays: the union of the blocks, no synchronization', async () => {
  await using hosts = await twoHosts()
  await using link = await openFaultyLink(hosts.west.agent.listen.port)
  await hosts.protect({ via: link.port, policy: { compression: false } })
  await firstPoint(hosts)
  await hosts.west.stop()
  const copies = await cyclesAway(hosts, 12)
  expect(hosts.east.report().catchUp).toMatchObject({ pendingCycles: 12 })
  const before = link.bytesToTarget
  await hosts.west.start()
  await Promise.all(copies)
  // 28 blocks instead of 204.
  expect(link.bytesToTarget - before).toBeLessThan(3 * MiB)
  expect(await hosts.compareNewest()).toEqual({ seq: 13 })
  expect(hosts.east.report()).toMatchObject({ ackedSeq: 13, catchUp: null, activity: 'replicating' })
  const codes = hosts.east.events().map(({ code }) => code)
  expect(codes).toContain('catching-up')
  expect(codes).toContain('caught-up')
  expect(codes).not.toContain('replication-resync')
  // The next cycles stand on it as on any other point.
  hosts.write(0, 50, 2, 99)
  expect((await copyNow(hosts)).point.seq).toBe(14)
  await hosts.compareNewest()
}, 60_000)

test('a point that retention keeps arrives by itself', async () => {
  await using hosts = await twoHosts()
  await hosts.protect({ policy: { retentionPoints: 15, retentionIntervalSeconds: 0 } })
  await firstPoint(hosts)
  await hosts.west.stop()
  const copies = await cyclesAway(hosts, 3)
  await hosts.west.start()
  await Promise.all(copies)
  await until('all of them', async () => (await pointsOf(hosts)).join() === '1,2,3,4')
}, 60_000)

test('cut and restarted in the middle of a run, it is resumed and not begun anew, though newer deltas wait by then', async () => {
  await using hosts = await twoHosts({ diskBytes: [64 * MiB] })
  await using link = await openFaultyLink(hosts.west.agent.listen.port)
  const policy = { compression: false, throttleBytesPerSecond: 8 * MiB }
  await hosts.protect({ via: link.port, policy })
  await firstPoint(hosts)
  link.setStalled(true)
  link.cut()
  await until('the break', () => !hosts.east.report().peerConnected)
  hosts.write(0, 0, 400, 1)
  const copies: Promise<unknown>[] = [copyNow(hosts).catch(() => {})]
  await until('delta 2', () => hosts.east.report().sealedSeq === 2)
  copies.push(...(await cyclesAway(hosts, 3)).map((copy) => copy.catch(() => {})))
  const before = link.bytesToTarget
  link.setStalled(false)
  await until('half of it', () => link.bytesToTarget - before > 14 * MiB)
  await hosts.east.stop()
  hosts.write(0, 200, 1, 77)
  await hosts.east.start()
  const { point } = await copyNow(hosts)
  await Promise.all(copies)
  expect(point.seq).toBeGreaterThanOrEqual(6)
  await hosts.compareNewest()
  // 25 MiB once, what was in flight at the break, and a little.
  expect(link.bytesToTarget - before).toBeLessThan(38 * MiB)
}, 60_000)

test('a breach is foretold while the target is away, before the data is too old, and called off when it is back', async () => {
  const clock = new JumpingClock()
  await using hosts = await twoHosts({ eastClock: clock })
  await hosts.protect({ policy: { copyFrequencySeconds: 900, compression: false } })
  await firstPoint(hosts)
  // Ten minutes of it: the same writes in one second would be churn that no loaded machine keeps up with.
  clock.jump(600_000)
  hosts.write(0, 0, 40, 1)
  await copyNow(hosts)
  const { forecast } = hosts.east.report()
  expect(forecast).toMatchObject({ breachAtMs: null })
  expect(forecast?.linkBytesPerSecond).toBeGreaterThan(0)
  await hosts.west.stop()
  await until('the break', () => !hosts.east.report().peerConnected)
  // Half a copy interval without a target is more than a link that is dialled anew.
  clock.jump(450_000)
  const [copy] = await cyclesAway(hosts, 1)
  const breachAtMs = await until('the forecast', () => hosts.east.report().forecast?.breachAtMs)
  expect(breachAtMs).toBeGreaterThan(Date.now())
  const event = () => hosts.east.events().find(({ code }) => code === 'rpo-breach-forecast')
  expect(event()).toMatchObject({ severity: 'warning', message: expect.stringContaining('link down') })
  await hosts.west.start()
  await copy
  for (let i = 0; i < 3; i++) await copyNow(hosts)
  expect(hosts.east.report().forecast?.breachAtMs).toBeNull()
  expect(hosts.east.events().map(({ code }) => code)).toContain('rpo-breach-over')
}, 60_000)

test('a target that asks for time gets it: the next copy comes so much later than the frequency says', async () => {
  const clock = new JumpingClock()
  let slowMs = 20_000
  await using hosts = await twoHosts({
    eastClock: clock,
    eastOverrides: {
      async dial(options) {
        const channel = await dialChannel(options)
        return {
          ...channel,
          async *messages() {
            for await (const message of channel.messages())
              yield message.kind === 'pointAck' ? { ...message, body: { ...message.body, slowMs } } : message
          },
        }
      },
    },
  })
  await hosts.protect({ policy: { copyFrequencySeconds: 30 } })
  await firstPoint(hosts)
  await copyNow(hosts)
  expect(hosts.east.report()).toMatchObject({ slowedByMs: 20_000, sealedSeq: 2 })
  slowMs = 0
  clock.jump(40_000)
  // It makes the capture loop look at its timetable once more.
  await hosts.east.agent.handlers['policy.update'](
    { vmId: VM, policy: replicationPolicy.parse({ copyFrequencySeconds: 30 }) },
    never,
  )
  expect(hosts.east.report().sealedSeq).toBe(2)
  clock.jump(10_000)
  await until('the slow cycle', () => hosts.east.report().ackedSeq === 3)
  expect(hosts.east.report().slowedByMs).toBe(0)
}, 60_000)
