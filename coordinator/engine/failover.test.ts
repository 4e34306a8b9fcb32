import { describe, expect, it } from 'vitest'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { protectedShop, TestCoordinator } from '../testing/test-coordinator.ts'

describe('a protected VM with scripted agents', () => {
  it('a test failover stands without a picture of its console, and says why there is none', async () => {
    await using test = await TestCoordinator.start()
    const { service } = test
    const { b } = await protectedShop(test)
    b.provider.failures.set('vm.screenshot', new HotsiteError('libvirt-unreachable', 'no libvirt'))
    const request = { point: 'latest', network: 'lab' } as const
    const drill = await test.job((await service.testFailover('shop', request)).jobId)
    expect(drill.state).toBe('succeeded')
    expect(drill.steps.find(({ name }) => name === 'picture')?.observed).toEqual({
      picture: 'none: no libvirt',
    })
    expect(b.provider.running()).toEqual([`test-${drill.jobId}`])
    await expect(service.showJobPicture(drill.jobId)).rejects.toMatchObject({ code: 'picture-unknown' })
  })

  it('is protected, tested, failed over in a plan, reversed, failed back and unprotected', async () => {
    await using test = await TestCoordinator.start()
    const { service } = test
    const { a, b } = await protectedShop(test)
    const shop = await service.showVm('shop')
    expect(shop).toMatchObject({ state: 'protected', epoch: 1, host: 'host-a', points: 1, health: 'normal' })
    const replicaId = [...b.provider.vms.keys()].find((id) => id.startsWith('replica-')) ?? ''
    expect(b.provider.vms.get(replicaId)).toMatchObject({
      disks: 0,
      nics: [{ name: 'eth0', network: 'green' }],
    })

    const drill = await test.job(
      (await service.testFailover('shop', { point: 'latest', network: 'lab' })).jobId,
    )
    expect(drill.state).toBe('succeeded')
    const { pngBase64 } = await service.showJobPicture(drill.jobId)
    expect(Buffer.from(pngBase64, 'base64').toString()).toBe('a picture')
    expect(b.provider.running()).toEqual([`test-${drill.jobId}`])
    expect(a.provider.running()).toEqual(['shop-id'])
    const cleanup = await service.cleanupTest('shop', { notes: 'booted', outcome: 'passed' })
    expect((await test.job(cleanup.jobId)).state).toBe('succeeded')
    expect(b.provider.running()).toEqual([])
    expect(b.agent.overlays.size).toBe(0)
    expect((await service.showVm('shop')).lastDrill).toMatchObject({ ok: true, notes: 'booted' })

    const planned = await test.job((await service.plannedFailover('shop')).jobId)
    expect(planned).toMatchObject({ state: 'succeeded', error: null })
    expect(a.provider.running()).toEqual([])
    expect(b.provider.running()).toEqual([replicaId])
    expect(a.provider.vms.get('shop-id')?.fenced).toBe(true)
    expect(a.agent.server.kinds()).toContain('replication.fence')
    expect(await service.showVm('shop')).toMatchObject({
      state: 'failedOver',
      epoch: 2,
      host: 'host-b',
      power: 'running',
    })

    expect((await test.job((await service.commit('shop')).jobId)).state).toBe('succeeded')
    const reversed = await test.job((await service.reverse('shop')).jobId)
    expect(reversed).toMatchObject({ state: 'succeeded', error: null })
    expect(await service.showVm('shop')).toMatchObject({
      state: 'protected',
      epoch: 2,
      host: 'host-b',
      source: { host: 'host-b' },
      target: { host: 'host-a' },
    })
    expect(a.provider.vms.get('shop-id')).toMatchObject({ fenced: true, running: false })

    const back = await test.job((await service.plannedFailover('shop')).jobId)
    expect(back).toMatchObject({ state: 'succeeded', error: null })
    expect(a.provider.running()).toEqual(['shop-id'])
    expect(b.provider.running()).toEqual([])
    expect(a.provider.vms.get('shop-id')).toMatchObject({
      fenced: false,
      nics: [{ name: 'eth0', network: 'blue' }],
      description: { name: 'shop', fabricVmId: 'shop-id' },
    })
    await test.job((await service.commit('shop')).jobId)
    expect((await test.job((await service.reverse('shop')).jobId)).state).toBe('succeeded')
    expect(await service.showVm('shop')).toMatchObject({ state: 'protected', epoch: 3, host: 'host-a' })

    const gone = await test.job((await service.unprotect('shop', { keepReplica: false })).jobId)
    expect(gone.state).toBe('succeeded')
    expect(await service.showVm('shop')).toMatchObject({ state: 'unprotected', vmId: null })
    expect(a.provider.running()).toEqual(['shop-id'])
  })
})
