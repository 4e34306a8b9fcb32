/** Two real agents for full-disks.test.ts, and what has to hold while and after a disk of theirs is full. */
import { expect } from 'vitest'
import { type TestHost, type TwoHosts, twoHosts, until, VM } from '#recovery-agent/testing/two-hosts.ts'
import { type Clock, systemClock } from '#shared/clock.ts'
import type { ReplicationReport } from '#shared/messages/reports.ts'
import { hasTool } from '#shared/testing/tools.ts'
import { mayMount } from './small-disk.ts'

export const mib = 2 ** 20
const speed = 30
/** Copies every second, and no pause between attempts is longer. */
export const fast: Clock = {
  now: systemClock.now,
  monotonicMs: () => systemClock.monotonicMs() * speed,
  sleep: (ms, signal) => systemClock.sleep(ms / speed, signal),
}
export const patient = { handshakeTimeoutMs: 10_000 * speed, heartbeatIntervalMs: 15_000 * speed }
export const never = new AbortController().signal
export const waitMs = 60_000
export const policy = { copyFrequencySeconds: 30, retentionPoints: 6, compression: false } as const

export const canRun = mayMount() && hasTool('qemu-img')
export const why = canRun
  ? ''
  : ' (left out: mounting small file systems takes root, and the judge is qemu-img)'

export interface Site extends AsyncDisposable {
  readonly hosts: TwoHosts
  readonly dir: string
  /** Daemons that gave up, of all lives so far. */
  readonly broken: string[]
}

type Places = NonNullable<NonNullable<Parameters<typeof twoHosts>[0]>['config']>

export async function openSite(dir: string, options: { config: Places }): Promise<Site> {
  const overrides = { channelLimits: patient }
  const hosts = await twoHosts({ ...options, eastClock: fast, westClock: fast, eastOverrides: overrides })
  const broken: string[] = []
  for (const host of [hosts.east, hosts.west]) watch(host, broken)
  return {
    hosts,
    dir,
    broken,
    async [Symbol.asyncDispose]() {
      await hosts[Symbol.asyncDispose]()
    },
  }
}

export function watch({ agent, name }: TestHost, broken: string[]): void {
  void agent.broken.then((error) => broken.push(`${name}: ${error.message}`))
}

export const pointsOf = async ({ west }: TwoHosts) =>
  (await west.agent.store.points(VM)).map(({ seq }) => seq).toSorted((a, b) => a - b)

/** Right after a copy cycle: a VM that is off and written to while it is read would be copied the next time. */
export async function betweenCycles({ east }: TwoHosts, change: () => void): Promise<void> {
  const { sealedSeq } = east.report(VM)
  await until('a copy cycle ends', () => east.report(VM).sealedSeq > sealedSeq, waitMs)
  change()
}

/** The report of the source says what is full and in which folder, and there is an event that says the same. */
export async function expectSaid({ east }: TwoHosts, dir: string): Promise<ReplicationReport> {
  const report = await until(
    `${dir} is said to be full`,
    () => {
      const found = east.report(VM)
      return found.error?.code === 'disk-full' && found.error.message.includes(dir) && found
    },
    waitMs,
  )
  const said = east.events().filter(({ code }) => code === 'disk-full')
  expect(said.map(({ message }) => message).join()).toContain(`no room left in ${dir}`)
  return report
}

/** Everything that was written arrives, without anybody's help, and nothing was compared anew but what was ordered. */
export async function expectGoesOn({ hosts, broken }: Site, orderedSyncs: number): Promise<void> {
  const { east } = hosts
  const since = east.report(VM).sealedSeq
  await until(
    'replication goes on',
    () => {
      const { ackedSeq, sealedSeq, error } = east.report(VM)
      // The second one from now: it began after whatever was written before.
      return error === null && ackedSeq === sealedSeq && ackedSeq >= since + 2
    },
    waitMs,
  )
  const { seq } = await hosts.compareNewest()
  expect(seq).toBeGreaterThanOrEqual(since + 2)
  const resyncs = east.events().filter(({ code }) => code === 'replication-resync')
  expect(resyncs).toHaveLength(orderedSyncs)
  expect(broken).toEqual([])
}
