import { expect, test } from 'vitest'
import { twoHosts, until, VM } from './testing/two-hosts.ts'

const never = new AbortController().signal

test('a VM is synchronized, then delta by delta, and every newest point equals the disks', async () => {
  await using hosts = await twoHosts()
  hosts.write(0, 3, 40, 1)
  hosts.write(1, 0, 10, 2)
  await hosts.protect()
  await until('the first point', () => hosts.east.report().ackedSeq === 1)
  expect(await hosts.compareNewest()).toEqual({ seq: 1 })
  expect(hosts.east.report()).toMatchObject({ activity: 'replicating', peerConnected: true, error: null })

  hosts.write(0, 100, 7, 3)
  hosts.write(1, 63, 1, 4)
  const copied = await hosts.east.agent.handlers['replication.copyNow']({ vmId: VM }, never)
  expect(copied.point.epoch).toBe(1)
  expect(await hosts.compareNewest()).toEqual({ seq: copied.point.seq })
})
