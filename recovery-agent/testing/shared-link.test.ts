import { expect, test } from 'vitest'
import { dialChannel } from '#shared/channel/dial.ts'
import type { Message } from '#shared/channel/message.ts'
import { replicationPolicy } from '#shared/messages/policy.ts'
import { openFaultyLink } from './faulty-link.ts'
import { protectOther } from './many-vms.ts'
import { twoHosts, until } from './two-hosts.ts'

const MiB = 1 << 20
const never = new AbortController().signal

test('on a slow link a huge delta starves nobody: small VMs go on copying, and a question is answered while bulk waits', async () => {
  // The longest time from a question of the source to its answer, by what is answered.
  const asked = new Map<string, number>()
  let slowestMs = 0
  await using hosts = await twoHosts({
    eastOverrides: {
      async dial(options) {
        const channel = await dialChannel(options)
        return {
          ...channel,
          send(message: Message, onWritten?: () => void) {
            if (message.kind === 'deltaBegin') asked.set(message.body.vmId, performance.now())
            return channel.send(message, onWritten)
          },
          async *messages() {
            for await (const message of channel.messages()) {
              if (message.kind === 'deltaAccepted') {
                const sinceMs = performance.now() - (asked.get(message.body.vmId) ?? 0)
                slowestMs = Math.max(slowestMs, sinceMs)
              }
              yield message
            }
          },
        }
      },
    },
  })
  await using link = await openFaultyLink(hosts.west.agent.listen.port, { bytesPerSecond: 8 * MiB })
  const policy = { compression: false }
  const huge = await protectOther(hosts, { name: 'huge', diskBytes: 64 * MiB, via: link.port, policy })
  const small = await Promise.all(
    ['small-1', 'small-2', 'small-3'].map((name) =>
      protectOther(hosts, { name, diskBytes: 2 * MiB, via: link.port, policy }),
    ),
  )
  for (const vm of [huge, ...small]) await until('the first points', () => vm.report().ackedSeq >= 1)

  link.setBytesPerSecond(MiB)
  huge.fill(60 * 16)
  const before = link.bytesToTarget
  let hugeDone = false
  const bulk = huge.copyNow().then(() => {
    hugeDone = true
  })
  await until('bulk on the wire', () => link.bytesToTarget - before > 4 * MiB)
  slowestMs = 0
  for (let round = 0; round < 3; round++) {
    for (const vm of small) vm.fill(2)
    await Promise.all(small.map((vm) => vm.copyNow()))
  }
  // Nine copies of 128 KiB, beside 60 MiB that take a minute alone.
  expect(hugeDone).toBe(false)
  // The kernel holds some megabytes of bulk that nothing can overtake: seconds of this link, not sixty.
  expect(slowestMs).toBeLessThan(20_000)
  link.setBytesPerSecond(Number.POSITIVE_INFINITY)
  await bulk
}, 120_000)

test('while bulk waits at the throttle, other VMs do not notice, and a new rate counts for the batch that waits', async () => {
  await using hosts = await twoHosts()
  const port = hosts.west.agent.listen.port
  const policy = { compression: false, throttleBytesPerSecond: 64 * 1024 }
  const slow = await protectOther(hosts, { name: 'slow', diskBytes: 8 * MiB, via: port, policy })
  const quick = await protectOther(hosts, { name: 'quick', diskBytes: 2 * MiB, via: port })
  for (const vm of [slow, quick]) await until('the first points', () => vm.report().ackedSeq >= 1)
  slow.fill(8 * 16)
  let slowDone = false
  const copied = slow.copyNow().then(() => {
    slowDone = true
  })
  await until('the delta', () => slow.report().sealedSeq === 2)
  for (let round = 0; round < 3; round++) {
    quick.fill(3)
    await quick.copyNow()
  }
  expect(slowDone).toBe(false)
  // 8 MiB at 64 KiB/s are two minutes; the policy changes, and what waits goes on at once.
  const { handlers } = hosts.east.agent
  const unlimited = replicationPolicy.parse({ copyFrequencySeconds: 900, compression: false })
  await handlers['policy.update']({ vmId: slow.vmId, policy: unlimited }, never)
  await copied
}, 60_000)
