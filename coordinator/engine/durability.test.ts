import { describe, expect, it } from 'vitest'
import { commands } from '#shared/messages/commands.ts'
import type { JobView } from '../admin/views.ts'
import { eventually, pairedSites, type Site, TestCoordinator } from '../testing/test-coordinator.ts'

const allKinds = Object.keys(commands)

/** Restarts the coordinator each time an agent has carried out a command and not yet answered it. */
async function restartAtEveryCommand(
  test: TestCoordinator,
  jobId: string,
  sites: readonly Site[],
): Promise<JobView> {
  const servers = sites.flatMap(({ provider, agent }) => [provider.server, agent.server])
  for (let restarts = 0; ; restarts += 1) {
    for (const server of servers) for (const kind of allKinds) server.hold.add(kind)
    const holding = () => servers.some((server) => server.holding > 0)
    const job = await eventually(async () => {
      const now = await test.service.showJob(jobId)
      return now.endedAtMs !== null || holding() ? now : undefined
    }, `something to hold in ${jobId}`)
    if (job.endedAtMs !== null) return job
    if (restarts > 40) throw new Error(`the job does not end: ${JSON.stringify(job)}`)
    await test.restart()
    for (const server of servers) server.release()
    await eventually(async () => !holding(), 'the answers to leave')
  }
}

/** A command with the same id is carried out once, however often it was sent. */
function expectOnce(sites: readonly Site[]): void {
  for (const { provider, agent } of sites)
    for (const server of [provider.server, agent.server]) {
      const ids = server.carriedOut.map(({ commandId }) => commandId)
      expect(new Set(ids).size).toBe(ids.length)
    }
}

describe('a coordinator restarted while an agent works', () => {
  it('goes on at the same step of protect and of a planned failover, and asks for nothing twice', async () => {
    await using test = await TestCoordinator.start()
    const { a, b } = await pairedSites(test)
    const sites = [a, b]
    const protect = await test.service.protect('shop', {})
    expect(await restartAtEveryCommand(test, protect.jobId, sites)).toMatchObject({ state: 'succeeded' })
    const planned = await test.service.plannedFailover('shop')
    expect(await restartAtEveryCommand(test, planned.jobId, sites)).toMatchObject({
      state: 'succeeded',
      error: null,
    })
    expectOnce(sites)
    const repeats = sites.flatMap(({ provider, agent }) =>
      [provider.server, agent.server].map((server) => server.received.length - server.carriedOut.length),
    )
    expect(repeats.some((count) => count > 0)).toBe(true)
    expect(a.agent.server.kinds().filter((kind) => kind === 'replication.finalDelta')).toHaveLength(1)
    expect(b.provider.running()).toHaveLength(1)
    expect(a.provider.running()).toEqual([])
  })
  it('goes on with a seed, sending the same key again, and with a verification', async () => {
    await using test = await TestCoordinator.start()
    const { a, b } = await pairedSites(test)
    const sites = [a, b]
    const run = (job: JobView) => restartAtEveryCommand(test, job.jobId, sites)
    const exported = await test.service.exportSeed('shop', { folder: '/mnt/usb', partBytes: 2 ** 30 })
    expect(await run(exported)).toMatchObject({ state: 'succeeded', error: null })
    const imported = await test.service.importSeed('shop', { folder: '/mnt/usb' })
    expect(await run(imported)).toMatchObject({ state: 'succeeded', error: null })
    const verified = await test.service.verify('shop', { percent: 100 })
    expect(await run(verified)).toMatchObject({ state: 'succeeded', error: null })
    expectOnce(sites)
    const keys = sites.flatMap(({ agent }) =>
      agent.server.received.flatMap(({ kind, request }) =>
        kind.startsWith('seed.') ? [(request as { keyBase64: string }).keyBase64] : [],
      ),
    )
    expect(keys.length).toBeGreaterThan(2)
    expect(new Set(keys).size).toBe(1)
  })
})

describe('answers that come badly', () => {
  it('twice: each counts once', async () => {
    await using test = await TestCoordinator.start()
    const { a, b } = await pairedSites(test)
    for (const site of [a, b]) {
      site.agent.server.answerTwice = true
      site.provider.server.answerTwice = true
    }
    const job = await test.job((await test.service.protect('shop', {})).jobId)
    expect(job.state).toBe('succeeded')
    expect(job.steps.map(({ state }) => state)).toEqual(job.steps.map(() => 'succeeded'))
  })

  it('not at all, because the agent is away: the job waits, says for whom, and goes on when it returns', async () => {
    await using test = await TestCoordinator.start()
    const { b } = await pairedSites(test)
    b.agent.server.hold.add('replica.prepare')
    const { jobId } = await test.service.protect('shop', {})
    await eventually(async () => b.agent.server.holding > 0, 'the command to arrive')
    await b.agent.server.disconnect()
    const waiting = await test.job(jobId, ({ state }) => state === 'waiting')
    expect(waiting.steps[2]).toMatchObject({
      state: 'running',
      observed: { waitingFor: 'agent host-b is not connected (replica.prepare)' },
    })
    const status = await test.service.status()
    expect(status.needsAttention.map(({ command }) => command)).toContain(`hotsite job show ${jobId}`)
    b.agent.server.release()
    await b.agent.server.connect(test.dialled)
    expect((await test.job(jobId)).state).toBe('succeeded')
    expect(b.agent.server.carriedOut.filter(({ kind }) => kind === 'replica.prepare')).toHaveLength(1)
  })
})

describe('clocks', () => {
  it('that jump by hours in both directions do not disturb a job', async () => {
    let offsetMs = 0
    const { systemClock } = await import('#shared/clock.ts')
    const clock = { ...systemClock, now: () => Date.now() + offsetMs }
    await using test = await TestCoordinator.start({ clock })
    const { b } = await pairedSites(test)
    b.agent.server.hold.add('replica.prepare')
    const { jobId } = await test.service.protect('shop', {})
    await eventually(async () => b.agent.server.holding > 0, 'the command to arrive')
    offsetMs = 5 * 3_600_000
    b.agent.server.release()
    b.agent.server.hold.add('overlay.create')
    expect((await test.job(jobId)).state).toBe('succeeded')
    const drill = await test.service.testFailover('shop', { point: 'latest', network: null })
    await eventually(async () => b.agent.server.holding > 0, 'the second command')
    offsetMs = -5 * 3_600_000
    b.agent.server.release()
    expect((await test.job(drill.jobId)).state).toBe('succeeded')
    b.agent.reportAgent({ nowMs: Date.now() + offsetMs + 3_600_000 })
    const events = await eventually(async () => {
      const found = await test.service.listEvents({ limit: 50 })
      return found.some(({ message }) => message.includes('60 min ahead')) ? found : undefined
    }, 'the skew event')
    expect(events.some(({ code }) => code === 'clock-skew')).toBe(true)
  })
})
