import { expect, test } from 'vitest'
import { limits } from '../limits.ts'
import { JumpingClock } from './jumping-clock.ts'
import { type TwoHosts, twoHosts, until, VM } from './two-hosts.ts'

const never = new AbortController().signal
const firstPoint = ({ east }: TwoHosts) => until('the first point', () => east.report().ackedSeq >= 1)
const fenced = ({ east }: TwoHosts) => until('the fence', () => east.report().activity === 'fenced')
const alarms = ({ east }: TwoHosts) =>
  east.events().filter(({ severity, code }) => severity === 'critical' || code === 'epoch-stale')
const raiseEpoch = ({ west }: TwoHosts) => west.agent.handlers['replica.fence']({ vmId: VM, epoch: 2 }, never)

test('a planned failover, in the order the coordinator takes its steps, is no alarm', async () => {
  const clock = new JumpingClock()
  await using hosts = await twoHosts({ eastClock: clock })
  await hosts.protect()
  await firstPoint(hosts)
  const { handlers } = hosts.east.agent
  await handlers['replication.finalDelta']({ vmId: VM }, never)
  await raiseEpoch(hosts)
  await fenced(hosts)
  expect(hosts.east.report().error).toBeNull()
  clock.jump(2 * limits.fenceOrderMs)
  await handlers['replication.fence']({ vmId: VM, epoch: 2 }, never)
  expect(alarms(hosts)).toEqual([])
})

test('the fence of an unplanned failover that arrives after the refusal of the target is no alarm', async () => {
  const clock = new JumpingClock()
  await using hosts = await twoHosts({ eastClock: clock })
  await hosts.protect()
  await firstPoint(hosts)
  await raiseEpoch(hosts)
  await until('the refusal', () => hosts.east.report().error?.code === 'epoch-stale')
  await hosts.east.agent.handlers['replication.fence']({ vmId: VM, epoch: 2 }, never)
  clock.jump(2 * limits.fenceOrderMs)
  expect(hosts.east.report()).toMatchObject({ activity: 'fenced', error: null })
  // The agent stops only after its loops did: whatever they had to say was said.
  await hosts.east.stop()
  await hosts.east.start()
  expect(alarms(hosts)).toEqual([])
})

test.each(['never told of a failover', 'seen off, then resumed'])(
  'a source that was %s raises the alarm, once',
  async (how) => {
    const clock = new JumpingClock()
    await using hosts = await twoHosts({ eastClock: clock })
    await hosts.protect()
    await firstPoint(hosts)
    const { handlers } = hosts.east.agent
    if (how.startsWith('seen off')) {
      await handlers['replication.finalDelta']({ vmId: VM }, never)
      await handlers['replication.resume']({ vmId: VM }, never)
    }
    await raiseEpoch(hosts)
    await fenced(hosts)
    expect(alarms(hosts)).toEqual([])
    await until('the alarm', () => {
      clock.jump(limits.fenceOrderMs)
      return alarms(hosts).length > 0
    })
    expect(alarms(hosts)).toMatchObject([{ severity: 'critical', code: 'epoch-stale' }])
  },
)
