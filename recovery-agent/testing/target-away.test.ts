import { expect, test } from 'vitest'
import { limits } from '../limits.ts'
import { JumpingClock } from './jumping-clock.ts'
import { twoHosts, until, VM } from './two-hosts.ts'

const never = new AbortController().signal

test.each(['replication.copyNow', 'replication.finalDelta'] as const)(
  '%s ends with a retryable error while the target is away, and repeated it succeeds',
  async (command) => {
    const clock = new JumpingClock()
    await using hosts = await twoHosts({ eastClock: clock })
    await hosts.protect()
    await until('the first point', () => hosts.east.report().ackedSeq >= 1)
    await hosts.west.stop()
    await until('the break', () => !hosts.east.report().peerConnected)
    hosts.write(0, 7, 1, 7)
    const copy = hosts.east.agent.handlers[command]
    const first = copy({ vmId: VM }, never).catch((error: unknown) => error)
    await until('the delta', () => hosts.east.report().sealedSeq === 2)
    clock.jump(limits.copyTargetAwayMs)
    expect(await first).toMatchObject({ code: 'target-unreachable', retryable: true })
    expect(hosts.east.report().activity).toBe('replicating')
    await hosts.west.start()
    const again = await copy({ vmId: VM }, never)
    expect(again.point.epoch).toBe(1)
    expect(await hosts.compareNewest()).toEqual({ seq: again.point.seq })
  },
)
