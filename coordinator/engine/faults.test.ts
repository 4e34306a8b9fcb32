import { describe, expect, it } from 'vitest'
import { systemClock } from '#shared/clock.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { JobView } from '../admin/views.ts'
import type { ScriptedServer } from '../testing/scripted-server.ts'
import { eventually, protectedShop, TestCoordinator } from '../testing/test-coordinator.ts'

const failure = (code: ConstructorParameters<typeof HotsiteError>[0], message: string) =>
  new HotsiteError(code, message)

describe('a planned failover that fails', () => {
  it('at the shut-down: the VM runs on at the source and stays protected at its epoch', async () => {
    await using test = await TestCoordinator.start()
    const { a, b } = await protectedShop(test)
    a.provider.failures.set('vm.shutDown', failure('shutdown-timeout', 'still running'))
    const job = await test.job((await test.service.plannedFailover('shop')).jobId)
    expect(job).toMatchObject({ state: 'failed', error: { code: 'shutdown-timeout' } })
    expect(a.provider.running()).toEqual(['shop-id'])
    expect(b.provider.running()).toEqual([])
    expect(await test.service.showVm('shop')).toMatchObject({ state: 'protected', epoch: 1 })
  })

  it('at the start in the target: the VM is started at the source again and replicates at the raised epoch', async () => {
    await using test = await TestCoordinator.start()
    const { a, b } = await protectedShop(test)
    b.provider.failures.set('vm.start', failure('vm-fenced', 'no'))
    const job = await test.job((await test.service.plannedFailover('shop')).jobId)
    expect(job.state).toBe('failed')
    expect(
      job.steps.filter(({ name }) => name.startsWith('undo:')).map(({ name, state }) => [name, state]),
    ).toEqual([
      ['undo:stop-target', 'succeeded'],
      ['undo:start-source', 'succeeded'],
      ['undo:resume-replication', 'succeeded'],
      ['undo:reset-vm', 'succeeded'],
      ['undo:remove-disks', 'succeeded'],
      ['undo:return', 'succeeded'],
    ])
    expect(a.provider.running()).toEqual(['shop-id'])
    expect(b.provider.running()).toEqual([])
    expect(b.agent.overlays.size).toBe(0)
    expect(a.agent.source).toMatchObject({ epoch: 2, activity: 'replicating' })
    a.agent.copy()
    expect(await test.vm('shop', ({ state }) => state === 'protected')).toMatchObject({ epoch: 2 })
    const messages = (await test.service.listEvents({ limit: 20 })).map(({ message }) => message)
    expect(messages.some((text) => text.includes('it runs at the source and replication goes on'))).toBe(true)
    b.provider.failures.clear()
    expect((await test.job((await test.service.plannedFailover('shop')).jobId)).state).toBe('succeeded')
    expect(await test.service.showVm('shop')).toMatchObject({ epoch: 3 })
  })

  it('whose source dies half way can be cancelled, and cancelled again, so that the disaster plan can run', async () => {
    await using test = await TestCoordinator.start()
    const { a, b } = await protectedShop(test)
    a.agent.server.hold.add('replication.finalDelta')
    const { jobId } = await test.service.plannedFailover('shop')
    await eventually(async () => a.agent.server.holding > 0, 'the last delta')
    await a.agent.server.disconnect()
    await a.provider.server.disconnect()
    await test.job(jobId, ({ state }) => state === 'waiting')
    await test.service.cancelJob(jobId)
    await test.job(jobId, ({ state, steps }) => state === 'waiting' && steps.at(-3)?.state === 'running')
    await test.service.cancelJob(jobId)
    expect((await test.job(jobId)).state).toBe('failed')
    const { allowedOperations } = await test.service.showVm('shop')
    expect(allowedOperations).toContain('unplannedFailover')
    const messages = (await test.service.listEvents({ limit: 20 })).map(({ message }) => message)
    expect(messages.some((text) => text.includes('could not be started at the source'))).toBe(true)
    const options = { point: 'latest', shutDownSource: false }
    expect((await test.job((await test.service.unplannedFailover('shop', options)).jobId)).state).toBe(
      'succeeded',
    )
    expect(b.provider.running()).toHaveLength(1)
  })

  it('is refused while resynchronizing, and the unplanned one is not', async () => {
    await using test = await TestCoordinator.start()
    const { a, b } = await protectedShop(test)
    a.agent.reportReplication({ activity: 'synchronizing', cause: 'diverged' })
    await test.vm('shop', ({ state }) => state === 'resynchronizing')
    await expect(test.service.plannedFailover('shop')).rejects.toMatchObject({
      code: 'operation-not-allowed',
      message: expect.stringContaining('resynchronizing (diverged)') as string,
    })
    const options = { point: 'latest', shutDownSource: false }
    expect((await test.job((await test.service.unplannedFailover('shop', options)).jobId)).state).toBe(
      'succeeded',
    )
    expect(b.provider.running()).toHaveLength(1)
  })
})

describe('a site that is away', () => {
  const limits = { absentWaitMs: 300 }
  const leaves = async (test: TestCoordinator, server: ScriptedServer, name: string) => {
    await server.disconnect()
    await eventually(async () => !(await test.service.showServer(name)).connected, `${name} to be away`)
  }

  it('fails a planned failover after a bound, and its return changes nothing', async () => {
    await using test = await TestCoordinator.start({ limits })
    const { a } = await protectedShop(test)
    await leaves(test, a.provider.server, 'vmm-a')
    const job = await test.job((await test.service.plannedFailover('shop')).jobId)
    expect(job).toMatchObject({ state: 'failed', error: { code: 'agent-absent' } })
    expect(job.error?.message).toContain('the provider of vmm-a is not connected')
    await a.provider.server.connect(test.dialled)
    expect((await test.service.showVm('shop')).state).toBe('protected')
    expect((await test.job((await test.service.plannedFailover('shop')).jobId)).state).toBe('succeeded')
    expect(a.provider.server.kinds().filter((kind) => kind === 'vm.shutDown')).toHaveLength(1)
  })

  it('and returned while the coordinator was down: the bound counts that time', async () => {
    await using test = await TestCoordinator.start()
    const { a } = await protectedShop(test)
    await leaves(test, a.provider.server, 'vmm-a')
    const { jobId } = await test.service.plannedFailover('shop')
    await test.job(jobId, ({ state }) => state === 'waiting')
    await test.stop()
    const later = { ...systemClock, now: () => systemClock.now() + 3 * 3_600_000 }
    await test.start({ clock: later })
    await a.provider.server.connect(test.dialled)
    expect(await test.job(jobId)).toMatchObject({ state: 'failed', error: { code: 'agent-absent' } })
    expect(a.provider.running()).toEqual(['shop-id'])
    expect(a.provider.server.kinds()).not.toContain('vm.shutDown')
  })

  it('as the target: an unplanned failover neither shuts down nor fences a source that still runs', async () => {
    await using test = await TestCoordinator.start({ limits })
    const { a, b } = await protectedShop(test)
    await leaves(test, b.agent.server, 'host-b')
    const options = { point: 'latest', shutDownSource: true }
    const job = await test.job((await test.service.unplannedFailover('shop', options)).jobId)
    expect(job).toMatchObject({ state: 'failed', error: { code: 'agent-absent' } })
    expect(a.provider.running()).toEqual(['shop-id'])
    expect(await test.service.showVm('shop')).toMatchObject({ state: 'protected', epoch: 1 })
    const lost = await test.service.unplannedFailover('shop', { ...options, shutDownSource: false })
    await test.job(lost.jobId, ({ state }) => state === 'waiting')
    expect(await test.service.showVm('shop')).toMatchObject({ epoch: 1 })
    await b.agent.server.connect(test.dialled)
    expect((await test.job(lost.jobId)).state).toBe('succeeded')
  })

  it('fails a test failover, and leaves nothing to clean up', async () => {
    await using test = await TestCoordinator.start({ limits })
    const { b } = await protectedShop(test)
    await leaves(test, b.agent.server, 'host-b')
    const options = { point: 'latest', network: null }
    const job = await test.job((await test.service.testFailover('shop', options)).jobId)
    expect(job).toMatchObject({ state: 'failed', error: { code: 'agent-absent' } })
    expect((await test.service.showVm('shop')).testFailover.state).toBe('none')
  })
})

describe('an unplanned failover', () => {
  it('with the source gone is not held up; the source is fenced when it returns (I5)', async () => {
    await using test = await TestCoordinator.start()
    const { a, b } = await protectedShop(test)
    await a.provider.server.disconnect()
    await a.agent.server.disconnect()
    const options = { point: '1.1', shutDownSource: true }
    const job = await test.job((await test.service.unplannedFailover('shop', options)).jobId)
    expect(job.state).toBe('succeeded')
    expect(job.steps.find(({ name }) => name === 'shut-down')).toMatchObject({ state: 'skipped' })
    expect(b.provider.running()).toHaveLength(1)
    expect(await test.service.showVm('shop')).toMatchObject({ state: 'failedOver', epoch: 2 })
    expect((await test.service.showVm('shop')).healthReasons.join()).toContain('old source')
    await test.job((await test.service.commit('shop')).jobId)

    const reverse = await test.service.reverse('shop')
    await test.job(reverse.jobId, ({ state }) => state === 'waiting')
    expect(a.provider.running()).toEqual(['shop-id'])
    await a.provider.server.connect(test.dialled)
    await a.agent.server.connect(test.dialled)
    expect((await test.job(reverse.jobId)).state).toBe('succeeded')
    expect(a.provider.running()).toEqual([])
    expect(a.provider.vms.get('shop-id')?.fenced).toBe(true)
    const order = a.agent.server.kinds()
    expect(order.indexOf('replication.fence')).toBeLessThan(order.indexOf('replica.adopt'))
  })

  it('fences a source that still answers before the VM starts at the target', async () => {
    await using test = await TestCoordinator.start()
    const { a, b } = await protectedShop(test)
    a.provider.server.hold.add('vm.fence')
    const options = { point: 'latest', shutDownSource: false }
    const { jobId } = await test.service.unplannedFailover('shop', options)
    const stateOf = (job: JobView) => job.steps.find(({ name }) => name === 'fence-source')?.state
    const job = await test.job(jobId, (now) => stateOf(now) === 'running')
    expect(stateOf(job)).toBe('running')
    expect(a.provider.server.holding).toBe(1)
    expect(b.provider.running()).toEqual([])
    a.provider.server.release()
    expect((await test.job(jobId)).state).toBe('succeeded')
    expect(a.provider.running()).toEqual([])
  })

  it('that fails on a full disk can be started again, with another point', async () => {
    await using test = await TestCoordinator.start()
    const { a, b } = await protectedShop(test)
    a.agent.copy()
    await test.vm('shop', ({ points }) => points === 2)
    b.agent.failures.set('overlay.create', failure('point-unknown', 'gone'))
    const options = { point: '1.2', shutDownSource: false }
    const job = await test.job((await test.service.unplannedFailover('shop', options)).jobId)
    expect(job.state).toBe('failed')
    expect(await test.service.showVm('shop')).toMatchObject({
      state: 'failoverFailed',
      health: 'critical',
      allowedOperations: ['unprotect', 'unplannedFailover'],
    })
    b.agent.failures.clear()
    const again = await test.job(
      (await test.service.unplannedFailover('shop', { ...options, point: '1.1' })).jobId,
    )
    expect(again).toMatchObject({ state: 'succeeded', error: null })
    expect(await test.service.showVm('shop')).toMatchObject({ state: 'failedOver', epoch: 3 })
    expect(b.agent.overlays.size).toBe(1)
  })

  it('lets another point be chosen before the commit', async () => {
    await using test = await TestCoordinator.start()
    const { a, b } = await protectedShop(test)
    a.agent.copy()
    await test.vm('shop', ({ points }) => points === 2)
    await test.job(
      (await test.service.unplannedFailover('shop', { point: 'latest', shutDownSource: true })).jobId,
    )
    const first = [...b.agent.overlays]
    await expect(test.service.changePoint('shop', { point: '9.9' })).rejects.toMatchObject({
      code: 'point-unknown',
    })
    const job = await test.job((await test.service.changePoint('shop', { point: '1.1' })).jobId)
    expect(job).toMatchObject({ state: 'succeeded', error: null })
    expect([...b.agent.overlays]).not.toEqual(first)
    expect(b.agent.overlays.size).toBe(1)
    expect(await test.service.showVm('shop')).toMatchObject({ state: 'failedOver', power: 'running' })
    await expect(
      test.service.unplannedFailover('shop', { point: 'latest', shutDownSource: false }),
    ).rejects.toMatchObject({
      code: 'operation-not-allowed',
    })
  })
})

describe('a test failover that fails', () => {
  it('cleans up after itself and leaves a failed drill', async () => {
    await using test = await TestCoordinator.start()
    const { b } = await protectedShop(test)
    b.provider.failures.set('vm.define', failure('host-unknown', 'no such host'))
    const job = await test.job(
      (await test.service.testFailover('shop', { point: 'latest', network: null })).jobId,
    )
    expect(job).toMatchObject({ state: 'failed', error: { code: 'host-unknown' } })
    expect(b.agent.overlays.size).toBe(0)
    expect(await test.service.showVm('shop')).toMatchObject({
      state: 'protected',
      testFailover: { state: 'none' },
      lastDrill: { ok: false, notes: 'no such host' },
    })
  })
})

describe('removing protection', () => {
  it('does not wait for a target that is gone; the removal is delivered when it returns', async () => {
    await using test = await TestCoordinator.start()
    const { b } = await protectedShop(test)
    await b.agent.server.disconnect()
    await b.provider.server.disconnect()
    const job = await test.job((await test.service.unprotect('shop', { keepReplica: false })).jobId)
    expect(job.state).toBe('succeeded')
    expect(b.agent.server.kinds()).not.toContain('replica.remove')
    await b.agent.server.connect(test.dialled)
    await eventually(async () => b.agent.server.kinds().includes('replica.remove'), 'the removal')
  })
})

describe('steering replication', () => {
  it('pause, resume, resync and policy reach the agents and the view', async () => {
    await using test = await TestCoordinator.start()
    const { a, b } = await protectedShop(test)
    const run = async (job: Promise<{ jobId: string }>) => (await test.job((await job).jobId)).state
    expect(await run(test.service.pause('shop'))).toBe('succeeded')
    expect(await test.service.showVm('shop')).toMatchObject({ state: 'paused', health: 'warning' })
    await expect(test.service.pause('shop')).rejects.toMatchObject({ code: 'operation-not-allowed' })
    expect(await run(test.service.resume('shop'))).toBe('succeeded')
    expect(await run(test.service.resync('shop'))).toBe('succeeded')
    a.agent.copy()
    await test.vm('shop', ({ state }) => state === 'protected')
    expect(await run(test.service.setPolicy('shop', { retentionPoints: 3 }))).toBe('succeeded')
    expect((await test.service.showVm('shop')).policy).toMatchObject({
      retentionPoints: 3,
      copyFrequencySeconds: 30,
    })
    expect(b.agent.server.kinds()).toContain('policy.update')
    await test.service.pinPoint('shop', 'latest', true)
    expect(b.agent.server.kinds()).toContain('replica.pin')
    const names = (await test.service.listPoints('shop')).map(({ name }) => name)
    expect(names).toEqual(['1.2', '1.1'])
  })
})
