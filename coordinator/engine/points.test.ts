import { describe, expect, it } from 'vitest'
import type { PointReport } from '#shared/messages/reports.ts'
import { pairedSites, protectedShop, type Site, TestCoordinator } from '../testing/test-coordinator.ts'

/** The newest point last, as the agent holds them. */
async function withPoints(
  test: TestCoordinator,
  { a, b }: { a: Site; b: Site },
  changes: readonly Partial<PointReport>[],
): Promise<void> {
  while (b.agent.points.length < changes.length) a.agent.copy()
  b.agent.points = b.agent.points.map((point, index) => ({ ...point, ...changes[index] }))
  b.agent.reportReplica('shop-id')
  await test.vm('shop', ({ points }) => points === changes.length)
  await test.vm('shop', ({ healthFindings }) => healthFindings.length > 0)
}

const codes = async ({ service }: TestCoordinator): Promise<string[]> =>
  (await service.listEvents({ limit: 100 })).map(({ code }) => code)
const requests = ({ agent }: Site, kind: string): unknown[] =>
  agent.server.carriedOut.filter((each) => each.kind === kind).map(({ request }) => request)

describe('points that are not sound', () => {
  it('a damaged one is refused when it is asked for, and the newest sound one is named', async () => {
    await using test = await TestCoordinator.start()
    const sites = await protectedShop(test)
    await withPoints(test, sites, [{}, {}, { damaged: true }])
    const refusal = {
      code: 'point-damaged',
      message: 'recovery point 1.3 of shop is damaged at the target; the newest sound one is 1.2',
    }
    const { service } = test
    const options = { shutDownSource: false, point: 'latest' }
    await expect(service.testFailover('shop', { point: '1.3', network: null })).rejects.toMatchObject(refusal)
    await expect(service.testFailover('shop', { point: 'latest', network: null })).rejects.toMatchObject(
      refusal,
    )
    await expect(service.unplannedFailover('shop', options)).rejects.toMatchObject(refusal)
    await expect(service.plannedFailover('shop')).rejects.toMatchObject(refusal)
    expect(sites.a.provider.running()).toEqual(['shop-id'])
    await service.pinPoint('shop', '1.3', true)
    const status = await service.status()
    expect(status.needsAttention[0]).toMatchObject({
      severity: 'critical',
      command: 'hotsite vm verify shop --full',
    })
    const failover = await service.unplannedFailover('shop', { ...options, point: '1.2' })
    expect((await test.job(failover.jobId)).state).toBe('succeeded')
    await expect(service.changePoint('shop', { point: '1.3' })).rejects.toMatchObject(refusal)
  })

  it('a suspect one is used as asked, with a warning that names the point before it', async () => {
    await using test = await TestCoordinator.start()
    const sites = await protectedShop(test)
    await withPoints(test, sites, [{}, { suspect: 'much changed' }, { suspect: 'no longer compresses' }])
    const job = await test.job(
      (await test.service.unplannedFailover('shop', { point: 'latest', shutDownSource: false })).jobId,
    )
    expect(job.state).toBe('succeeded')
    const hint = 'suspect: no longer compresses; before it: hotsite failover change-point shop --point 1.1'
    expect(job.steps.find(({ name }) => name === 'create-disks')?.observed).toMatchObject({
      warning: hint,
      point: { epoch: 1, seq: 3 },
    })
    expect(await codes(test)).toContain('point-suspect-used')
  })
})

describe('proof before a VM starts', () => {
  it('is made unless a person is in a hurry, which is said in the step and as an event', async () => {
    await using test = await TestCoordinator.start()
    const { b } = await protectedShop(test)
    const { service } = test
    const drill = await test.job(
      (await service.testFailover('shop', { point: 'latest', network: null })).jobId,
    )
    expect(drill.steps[1]?.observed).toMatchObject({ verified: true })
    expect(await codes(test)).not.toContain('verify-skipped')
    await test.job((await service.cleanupTest('shop', { notes: '', outcome: 'passed' })).jobId)
    const planned = await test.job((await service.plannedFailover('shop', { verify: false })).jobId)
    expect(planned.steps.find(({ name }) => name === 'create-disks')?.observed).toMatchObject({
      verified: false,
    })
    expect(await codes(test)).toContain('verify-skipped')
    expect(requests(b, 'overlay.create')).toMatchObject([{ verify: true }, { verify: false }])
  })
})

describe('a resynchronization that waits', () => {
  const estimate = { compareBytes: 20 * 2 ** 30, sendBytes: 310 * 2 ** 20, seconds: 240 }
  const resync = { cause: 'tracker-lost', waitsFor: 'approval', startsAtMs: null, estimate } as const

  it('is shown with cause, estimate and command; resync begins it, and --now does nothing else', async () => {
    await using test = await TestCoordinator.start()
    const { a } = await protectedShop(test)
    const { service } = test
    await expect(service.approveResync('shop')).rejects.toMatchObject({ code: 'resync-not-waiting' })
    a.agent.said = { resync }
    a.agent.reportReplication({ activity: 'waiting', cause: 'tracker-lost' })
    const shop = await test.vm('shop', ({ state }) => state === 'resynchronizing')
    expect(shop).toMatchObject({ resync, stateText: 'resynchronizing (tracker-lost)' })
    const text =
      'resynchronization (tracker-lost) waits for approval: compares 20 GiB, sends about 310 MiB, about 4 min'
    expect((await service.status()).needsAttention).toContainEqual({
      severity: 'warning',
      text: `shop: ${text}; until then no new point is made`,
      command: 'hotsite vm resync shop --now',
    })
    const began = (await service.listEvents({ limit: 50 })).find(({ code }) => code === 'resync-began')
    expect(began?.message).toContain(text)

    await service.approveResync('shop')
    expect(requests(a, 'replication.approveResync')).toEqual([{ vmId: 'shop-id' }])
    a.agent.said = { resync }
    a.agent.reportReplication({ activity: 'waiting', cause: 'tracker-lost' })
    await test.vm('shop', (vm) => vm.resync !== null)
    const job = await test.job((await service.resync('shop')).jobId)
    expect(job.steps[0]?.observed).toEqual({ approved: 'tracker-lost' })
    expect(requests(a, 'replication.resync')).toEqual([])
    a.agent.reportReplication({ activity: 'replicating', cause: null })
    await test.vm('shop', ({ state }) => state === 'protected')
    await test.job((await service.resync('shop')).jobId)
    expect(requests(a, 'replication.resync')).toEqual([{ vmId: 'shop-id', cause: 'requested' }])
  })

  it('a first copy at a time: asked of the source, shown while it waits, begun at once when told to', async () => {
    await using test = await TestCoordinator.start()
    const { a } = await pairedSites(test)
    const { service } = test
    const startAtMs = Date.now() + 7_200_000
    await expect(service.protect('shop', { startAtMs: Date.now() - 1 })).rejects.toMatchObject({
      code: 'start-time-invalid',
    })
    a.agent.copies = false
    a.agent.said = {
      resync: { cause: 'initial', waitsFor: 'start-time', startsAtMs: startAtMs, estimate: null },
    }
    const { jobId } = await service.protect('shop', { startAtMs })
    const job = await test.job(jobId, ({ steps }) => steps[4]?.observed?.['waitsFor'] === 'start-time')
    expect(job.steps[4]?.observed).toMatchObject({ startsAtMs: startAtMs })
    expect(requests(a, 'replication.start')).toMatchObject([{ notBeforeMs: startAtMs, cause: 'initial' }])
    expect((await service.status()).needsAttention).toContainEqual({
      severity: 'warning',
      text: 'shop: the first copy waits for its time, in 120 min; nothing can be failed over yet',
      command: 'hotsite vm resync shop --now',
    })
    await service.approveResync('shop')
    a.agent.copy()
    expect((await test.job(jobId)).state).toBe('succeeded')
  })

  it('of a policy: an unknown time zone is refused', async () => {
    await using test = await TestCoordinator.start()
    await protectedShop(test)
    for (const timeZone of ['Mars/Olympus', '+02:00', ''])
      await expect(test.service.setPolicy('shop', { timeZone })).rejects.toMatchObject({
        code: 'time-zone-unknown',
      })
    const set = await test.service.setPolicy('shop', { timeZone: 'Europe/Berlin', resync: 'ask' })
    expect((await test.job(set.jobId)).state).toBe('succeeded')
    expect((await test.service.showVm('shop')).policy).toMatchObject({ timeZone: 'Europe/Berlin' })
  })
})

it('a source that is fenced as part of a failover is no alarm; one that nobody asked for is', async () => {
  await using test = await TestCoordinator.start()
  const { a } = await protectedShop(test)
  a.provider.server.hold.add('vm.fence')
  const { jobId } = await test.service.plannedFailover('shop')
  await test.job(jobId, ({ steps }) => steps.at(-1)?.state === 'running')
  a.agent.said = { slowedByMs: 1 }
  a.agent.reportReplication({ activity: 'fenced', cause: null })
  const during = await test.vm('shop', ({ slowedByMs }) => slowedByMs === 1)
  expect([during.state, during.health]).toEqual(['failingOver', 'warning'])
  a.provider.server.release()
  expect((await test.job(jobId)).state).toBe('succeeded')
})

it('a source that was fenced while the coordinator thinks it replicates is critical', async () => {
  await using test = await TestCoordinator.start()
  const { a } = await protectedShop(test)
  a.agent.reportReplication({ activity: 'fenced', cause: null })
  const vm = await test.vm('shop', ({ health }) => health === 'critical')
  expect(vm.healthReasons).toContain('host-a: the source agent is fenced')
})
