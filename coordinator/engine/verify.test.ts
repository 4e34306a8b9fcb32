import { describe, expect, it } from 'vitest'
import { eventually, protectedShop, TestCoordinator } from '../testing/test-coordinator.ts'

describe('verification', () => {
  it('reads again at the source, then at the target, and says of each disk what that proves', async () => {
    await using test = await TestCoordinator.start()
    const { a, b } = await protectedShop(test)
    const job = await test.job((await test.service.verify('shop', { percent: 100 })).jobId)
    expect(job).toMatchObject({ state: 'succeeded', error: null })
    expect(job.steps.at(-1)?.observed).toEqual({
      sentences: ['disk0: proved equal, 100 % of blocks, just now'],
    })
    const asked = (kinds: readonly { kind: string; request: unknown }[], kind: string) =>
      kinds.filter((each) => each.kind === kind).map(({ request }) => request)
    expect(asked(a.agent.server.carriedOut, 'replication.verify')).toEqual([
      { vmId: 'shop-id', percent: 100 },
    ])
    expect(asked(b.agent.server.carriedOut, 'replica.verify')).toEqual([{ vmId: 'shop-id', percent: 100 }])
    expect((await test.service.listEvents({ limit: 50 })).map(({ code }) => code)).not.toContain(
      'verify-differences',
    )
  })

  it('what was healed or untracked is an event and no failure; a sample claims no more than it read', async () => {
    await using test = await TestCoordinator.start()
    const { a, b } = await protectedShop(test)
    a.agent.found.untrackedBlocks = 4
    b.agent.found.healedBlocks = 1
    const job = await test.job((await test.service.verify('shop', { percent: 5 })).jobId)
    expect(job.state).toBe('succeeded')
    expect(job.steps.at(-1)?.observed?.['sentences']).toEqual([
      'disk0: 4 blocks had changed at the source without its tracker saying so: the next copy brings them; ' +
        '1 block had rotted at the target and was healed from the source; the rest of a sample of 5 % of blocks is equal',
    ])
    const events = await test.service.listEvents({ limit: 50 })
    const found = events.filter(({ code }) => code === 'verify-differences')
    expect(found).toMatchObject([
      { severity: 'warning', message: expect.stringContaining('disk0') as string },
    ])
  })

  it('something bad that remains fails the job and names disk and points', async () => {
    await using test = await TestCoordinator.start()
    const { b } = await protectedShop(test)
    b.agent.found.badBlocks = 3
    b.agent.damagedPoints = [{ epoch: 1, seq: 1 }]
    const job = await test.job((await test.service.verify('shop', { percent: 100 })).jobId)
    expect(job).toMatchObject({ state: 'failed', error: { code: 'verify-failed' } })
    expect(job.error?.message).toBe(
      'shop: disk0: 3 blocks at the target are not what was attested, and the source could not heal them. ' +
        'recovery point 1.1 cannot be used until healed',
    )
    const critical = (await test.service.listEvents({ limit: 50 })).filter(
      ({ severity, code }) => severity === 'critical' && code === 'verify-differences',
    )
    expect(critical).toHaveLength(1)
    expect(await test.service.showVm('shop')).toMatchObject({ state: 'protected', currentJob: null })
  })

  it('is allowed while paused, of the target alone, and refused with the reason while it makes no sense', async () => {
    await using test = await TestCoordinator.start()
    const { a } = await protectedShop(test)
    await test.job((await test.service.pause('shop')).jobId)
    const paused = await test.job((await test.service.verify('shop', { percent: 5 })).jobId)
    expect(paused.state).toBe('succeeded')
    expect(paused.steps[0]).toMatchObject({ state: 'skipped', observed: { reason: 'replication is paused' } })
    expect(paused.steps.at(-1)?.observed?.['sentences']).toEqual([
      'disk0: the target is as attested, a sample of 5 % of blocks, just now; the source was not read',
    ])
    await test.job((await test.service.resume('shop')).jobId)
    a.agent.reportReplication({ activity: 'synchronizing', cause: 'diverged' })
    await test.vm('shop', ({ state }) => state === 'resynchronizing')
    await expect(test.service.verify('shop', { percent: 5 })).rejects.toMatchObject({
      code: 'operation-not-allowed',
      message: 'verification of shop: the VM is resynchronizing (diverged)',
    })
  })

  it('makes way for an unplanned failover, also after a restart, and holds up no pin', async () => {
    await using test = await TestCoordinator.start()
    const { b } = await protectedShop(test)
    b.agent.server.hold.add('replica.verify')
    const verify = await test.service.verify('shop', { percent: 100 })
    await eventually(async () => b.agent.server.holding > 0, 'the verification to be under way')
    await test.service.pinPoint('shop', 'latest', true)
    await expect(test.service.plannedFailover('shop')).rejects.toMatchObject({ code: 'vm-busy' })
    const failover = await test.service.unplannedFailover('shop', { point: 'latest', shutDownSource: false })
    expect(await test.job(verify.jobId)).toMatchObject({
      state: 'cancelled',
      error: { code: 'job-cancelled', message: 'it made way for the unplanned failover of shop' },
    })
    await test.restart()
    b.agent.server.release()
    expect((await test.job(failover.jobId)).state).toBe('succeeded')
    expect((await test.job(verify.jobId)).state).toBe('cancelled')
  })
})
