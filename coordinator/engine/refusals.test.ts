import { describe, expect, it } from 'vitest'
import { testPolicy } from '../testing/scripted-site.ts'
import { eventually, pairedSites, protectedShop, TestCoordinator } from '../testing/test-coordinator.ts'

describe('requests at the wrong time', () => {
  it('the same one is recognised, another is denied and the job named; cancel leads back', async () => {
    await using test = await TestCoordinator.start()
    const { a, b } = await pairedSites(test)
    a.agent.copies = false
    const first = await test.service.protect('shop', {})
    expect((await test.service.protect('shop', {})).jobId).toBe(first.jobId)
    await test.job(first.jobId, ({ steps }) => steps[4]?.state === 'running')
    await expect(test.service.protect('shop', {})).rejects.toMatchObject({ code: 'vm-already-protected' })
    await expect(test.service.unprotect('shop', { keepReplica: false })).rejects.toMatchObject({
      code: 'vm-busy',
      message: expect.stringContaining(first.jobId) as string,
    })
    await test.service.cancelJob(first.jobId)
    expect(await test.job(first.jobId)).toMatchObject({
      state: 'cancelled',
      error: { code: 'job-cancelled' },
    })
    expect(a.agent.source).toBeUndefined()
    expect(b.agent.server.kinds()).toContain('replica.remove')
    expect(await test.service.showVm('shop')).toMatchObject({
      state: 'unprotected',
      allowedOperations: ['protect', 'exportSeed'],
    })
    await expect(test.service.cancelJob(first.jobId)).rejects.toMatchObject({ code: 'job-not-cancellable' })
    a.agent.copies = true
    expect((await test.job((await test.service.protect('shop', {})).jobId)).state).toBe('succeeded')
    expect(await test.service.showVm('shop')).toMatchObject({ epoch: 2 })
  })

  it('a replica nobody can take is refused with the reason of every host', async () => {
    await using test = await TestCoordinator.start()
    const { b } = await pairedSites(test)
    await b.agent.server.disconnect()
    await eventually(
      async () => (await test.service.showServer('host-b')).connected === false,
      'the agent to go',
    )
    const job = await test.job((await test.service.protect('shop', {})).jobId)
    expect(job).toMatchObject({ state: 'failed', error: { code: 'placement-impossible' } })
    expect(job.error?.message).toContain('host-b: its recovery agent is not connected')
  })

  it('clouds: itself, unknown, twice, in use', async () => {
    await using test = await TestCoordinator.start()
    await protectedShop(test)
    const { testPolicy: policy } = await import('../testing/scripted-site.ts')
    const pair = (source: string, target: string, networkMap = {}) =>
      test.service.pairClouds({ source, target, policy, networkMap })
    await expect(pair('gold', 'vmm-a/gold')).rejects.toMatchObject({ code: 'cloud-pair-itself' })
    await expect(pair('gold', 'nowhere')).rejects.toMatchObject({ code: 'cloud-unknown' })
    await expect(pair('silver', 'gold')).rejects.toMatchObject({ code: 'cloud-already-paired' })
    await expect(pair('silver', 'gold', { green: 'x' })).rejects.toMatchObject({ code: 'network-unknown' })
    await expect(test.service.unpairCloud('gold')).rejects.toMatchObject({ code: 'cloud-in-use' })
    await expect(test.service.showVm('nobody')).rejects.toMatchObject({ code: 'vm-unknown' })
    await expect(test.service.pause('nobody')).rejects.toMatchObject({ code: 'vm-unknown' })
  })
})

describe('what cannot be done is refused when it is asked', () => {
  it('a test on a network that the target does not have', async () => {
    await using test = await TestCoordinator.start()
    await protectedShop(test)
    const started = test.service.testFailover('shop', { point: 'latest', network: 'nope' })
    await expect(started).rejects.toMatchObject({
      code: 'network-unknown',
      message: 'vmm-b has no VM network "nope"; it has green, lab',
    })
    expect((await test.service.showVm('shop')).currentJob).toBeNull()
  })
  it('application-consistent points: of a pairing, of a VM and of a change', async () => {
    await using test = await TestCoordinator.start()
    await pairedSites(test)
    const wanted = { appConsistentHours: 1, retentionPoints: 5 }
    const refusal = { code: 'app-consistent-unsupported' }
    await expect(test.service.protect('shop', { policy: wanted })).rejects.toMatchObject(refusal)
    await expect(
      test.service.pairClouds({
        source: 'silver',
        target: 'gold',
        policy: { ...testPolicy, ...wanted },
        networkMap: {},
      }),
    ).rejects.toMatchObject(refusal)
    await test.job((await test.service.protect('shop', {})).jobId)
    await expect(test.service.setPolicy('shop', wanted)).rejects.toMatchObject(refusal)
  })
})

it('refusals use the words of the command line', async () => {
  await using test = await TestCoordinator.start()
  await protectedShop(test)
  const { service } = test
  await expect(service.cleanupTest('shop', { notes: '', outcome: 'passed' })).rejects.toThrow(
    'clean-up of the test failover of shop: no test failover is there to clean up',
  )
  await expect(service.unpairCloud('gold')).rejects.toThrow('VM shop of cloud vmm-a/gold is protected')
  await expect(service.unpairCloud('silver')).rejects.toMatchObject({ code: 'pairing-unknown' })
})
