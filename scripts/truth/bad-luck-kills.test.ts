/** Daemons that die in the middle of jobs: the job goes on where it stopped, and exactly one VM runs. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { guestDirs, isGuestRunning } from '../lab-kit/guest.ts'
import { socketAnswers } from '../lab-kit/lab.ts'
import { waitUntil } from '../lab-kit/processes.ts'
import {
  type BadLuckLab,
  badLuckLab,
  expectReplicationGoesOn,
  guestName,
  hotsite,
  jobsOf,
  pairing,
  policy,
  stopDaemon,
  until,
  vmOf,
} from './bad-luck-lab.ts'

let site: BadLuckLab
beforeAll(async () => {
  site = await badLuckLab()
  await site.lab.cli('cloud', 'pair', ...pairing, ...policy)
})
afterAll(async () => {
  await site[Symbol.asyncDispose]()
})

const runningOn = () =>
  guestDirs(site.lab.layout)
    .filter((vm) => isGuestRunning(vm))
    .map((vm) => `${vm.file.name}@${vm.host}`)

async function newestJob() {
  const [newest] = (await jobsOf(site.lab)).toSorted((a, b) => b.createdAtMs - a.createdAtMs)
  return newest
}

/** Starts the operation and answers once `daemon`, told where to die, is dead. */
async function dieDuring(daemon: string, crashAt: string, operation: readonly string[]): Promise<void> {
  await stopDaemon(site.lab, daemon)
  site.lab.restart(daemon, { HOTSITE_CRASH_AT: crashAt })
  if (daemon === 'coordinator')
    await until('the coordinator answers', () => socketAnswers(site.lab.layout.socket))
  // The coordinator may die before it has answered.
  const said = await hotsite(site.lab, ...operation, '--no-wait')
  expect([0, 1, 5], said.err).toContain(said.exitCode)
  await until(`${daemon} dies at ${crashAt}`, () => !site.lab.isAlive(daemon))
  site.lab.restart(daemon)
}

async function expectJobSucceeds(kind: string): Promise<void> {
  await until(`${kind} succeeds`, async () => {
    try {
      const job = await newestJob()
      expect(job?.state).not.toBe('failed')
      return job?.kind === kind && job.state === 'succeeded'
    } catch (error) {
      // Not up again yet.
      if (error instanceof Error && 'code' in error && /^(ENOENT|ECONN)/.test(String(error.code)))
        return false
      throw error
    }
  })
}

/** In this order they lead through the whole life of a protected VM. */
const life: readonly {
  readonly kind: string
  readonly words: readonly string[]
  readonly crashAt: string
  readonly state: string
  readonly runs: readonly string[]
}[] = [
  {
    kind: 'protect',
    words: ['vm', 'protect', guestName],
    crashAt: 'step-stored:3',
    state: 'protected',
    runs: ['app-1@host-a1'],
  },
  {
    kind: 'pause',
    words: ['vm', 'pause', guestName],
    crashAt: 'command-stored',
    state: 'paused',
    runs: ['app-1@host-a1'],
  },
  {
    kind: 'resume',
    words: ['vm', 'resume', guestName],
    crashAt: 'result-before-store',
    state: 'protected',
    runs: ['app-1@host-a1'],
  },
  {
    kind: 'resync',
    words: ['vm', 'resync', guestName],
    crashAt: 'step-observed',
    state: 'protected',
    runs: ['app-1@host-a1'],
  },
  {
    kind: 'testFailover',
    words: ['failover', 'test', guestName],
    crashAt: 'command-stored:2',
    state: 'protected',
    runs: ['app-1@host-a1', 'app-1-test@host-b1'],
  },
  {
    kind: 'cleanupTest',
    words: ['failover', 'cleanup-test', guestName],
    crashAt: 'command-before-send',
    state: 'protected',
    runs: ['app-1@host-a1'],
  },
  {
    kind: 'plannedFailover',
    words: ['failover', 'planned', guestName],
    crashAt: 'step-observed:5',
    state: 'failedOver',
    runs: ['app-1@host-b1'],
  },
  {
    kind: 'changePoint',
    words: ['failover', 'change-point', guestName, '--point', 'latest'],
    crashAt: 'command-stored:2',
    state: 'failedOver',
    runs: ['app-1@host-b1'],
  },
  {
    kind: 'commit',
    words: ['failover', 'commit', guestName],
    crashAt: 'command-stored',
    state: 'committed',
    runs: ['app-1@host-b1'],
  },
  {
    kind: 'reverse',
    words: ['failover', 'reverse', guestName],
    crashAt: 'step-stored:2',
    state: 'protected',
    runs: ['app-1@host-b1'],
  },
  {
    kind: 'unplannedFailover',
    words: ['failover', 'unplanned', guestName, '--yes'],
    crashAt: 'result-stored:2',
    state: 'failedOver',
    runs: ['app-1@host-a1'],
  },
  {
    kind: 'commit',
    words: ['failover', 'commit', guestName],
    crashAt: 'step-begun',
    state: 'committed',
    runs: ['app-1@host-a1'],
  },
  {
    kind: 'reverse',
    words: ['failover', 'reverse', guestName],
    crashAt: 'command-before-send:2',
    state: 'protected',
    runs: ['app-1@host-a1'],
  },
]

describe('the coordinator dies', () => {
  it.each(life)('during $kind, at $crashAt', async ({ kind, words, crashAt, state, runs }) => {
    await dieDuring('coordinator', crashAt, words)
    await expectJobSucceeds(kind)
    await until(`the VM is ${state}`, async () => (await vmOf(site.lab)).state === state)
    if (kind === 'unplannedFailover')
      // The old source learns of it after the VM runs here.
      await until('the fence', () => runningOn().length === 1)
    expect(runningOn().sort()).toEqual([...runs].sort())
    if (state === 'protected') await expectReplicationGoesOn(site.lab)
  })
})

describe('an agent or a provider dies', () => {
  it.each([
    ['agent-host-a1', 'capture.before-seal'],
    ['agent-host-b1', 'target:sealed-before-ack'],
  ])(
    '%s, at %s of the last delta of a planned failover and then of the way back',
    async (daemon, crashAt) => {
      // So that only the last delta passes the point: nothing else is due for a minute.
      await site.lab.cli('vm', 'set-policy', guestName, '--copy-frequency', '15m')
      await dieDuring(daemon, crashAt, ['failover', 'planned', guestName])
      await expectJobSucceeds('plannedFailover')
      expect(runningOn()).toEqual(['app-1@host-b1'])
      await site.lab.cli('failover', 'commit', guestName)
      const [other, there] =
        daemon === 'agent-host-a1'
          ? ['agent-host-a1', 'target:before-seal']
          : ['agent-host-b1', 'source:sync-committed']
      await dieDuring(other, there, ['failover', 'reverse', guestName])
      await expectJobSucceeds('reverse')
      await site.lab.cli('failover', 'planned', guestName)
      await site.lab.cli('failover', 'commit', guestName)
      await site.lab.cli('failover', 'reverse', guestName)
      expect(runningOn()).toEqual(['app-1@host-a1'])
      await site.lab.cli('vm', 'set-policy', guestName, '--copy-frequency', '30s')
      await expectReplicationGoesOn(site.lab)
    },
  )

  it('the provider, while it starts the VM', async () => {
    await site.lab.cli('failover', 'planned', guestName, '--no-wait')
    await waitUntil(() => runningOn().includes('app-1@host-b1'), 30_000, 2)
    await site.lab.kill('provider-site-b')
    site.lab.restart('provider-site-b')
    await expectJobSucceeds('plannedFailover')
    expect(runningOn()).toEqual(['app-1@host-b1'])
    expect((await vmOf(site.lab)).state).toBe('failedOver')
  })
})
