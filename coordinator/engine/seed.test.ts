import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { openStore } from '../store/open.ts'
import { collectingLog } from '../testing/collecting-log.ts'
import { eventually, pairedSites, TestCoordinator } from '../testing/test-coordinator.ts'

const seed = { folder: '/mnt/usb/shop', partBytes: 2 ** 30 }

async function keyRows(test: TestCoordinator): Promise<number> {
  await using store = openStore(test.dataDir)
  return (await store.db.selectFrom('seed_keys').selectAll().execute()).length
}

/** Everything the coordinator says or keeps, as text: database files, jobs, events, VMs, status. */
async function everythingSaid({ service, dataDir }: TestCoordinator): Promise<string> {
  const files = readdirSync(dataDir).filter((name) => name.startsWith('coordinator.db'))
  const kept = files.map((name) => readFileSync(join(dataDir, name), 'latin1'))
  const said = [
    await service.listJobs({ limit: 100 }),
    await service.listEvents({ limit: 100 }),
    await service.listVms(),
    await service.status(),
  ]
  return [...kept, ...said.map((each) => JSON.stringify(each))].join('\n')
}

describe('a first copy that is carried', () => {
  it('export, import, then protected; the key reaches both agents and nothing else, and goes with the first point', async () => {
    const { log, text } = collectingLog()
    await using test = await TestCoordinator.start({ log })
    const { service } = test
    const { a, b } = await pairedSites(test)
    const exported = await test.job((await service.exportSeed('shop', seed)).jobId)
    expect(exported).toMatchObject({ state: 'succeeded', error: null })
    expect(await service.showVm('shop')).toMatchObject({
      state: 'awaitingSeed',
      stateText: 'waiting for its seed',
      health: 'warning',
      seed: { folder: '/mnt/usb/shop', files: 2 },
      allowedOperations: ['unprotect', 'exportSeed', 'importSeed'],
    })
    expect((await service.status()).needsAttention).toContainEqual(
      expect.objectContaining({ command: 'hotsite vm import-seed shop --folder FOLDER' }),
    )
    expect(a.agent.source).toBeUndefined()
    expect(await keyRows(test)).toBe(1)
    await test.restart({ log })

    const imported = await test.job((await test.service.importSeed('shop', { folder: '/mnt/b' })).jobId)
    expect(imported).toMatchObject({ state: 'succeeded', error: null })
    expect(imported.steps.map(({ title }) => title)).toContain('Send what changed since the export')
    expect(await test.service.showVm('shop')).toMatchObject({ state: 'protected', points: 1, seed: null })
    expect(b.agent.server.kinds()).not.toContain('replica.prepare')

    const [key = ''] = a.agent.seedKeys
    expect(Buffer.from(key, 'base64')).toHaveLength(32)
    expect(b.agent.seedKeys).toEqual([key])
    expect(await keyRows(test)).toBe(0)
    const raw = Buffer.from(key, 'base64').toString('latin1')
    const all = `${await everythingSaid(test)}\n${text()}`
    expect([all.includes(key), all.includes(raw), all.includes('/mnt/usb/shop')]).toEqual([
      false,
      false,
      true,
    ])
  })

  it('an export that failed goes on under the same key; an agent that quotes the key does not spread it', async () => {
    await using test = await TestCoordinator.start()
    const { a } = await pairedSites(test)
    const script = a.agent.server.script as { 'seed.export': (request: { keyBase64: string }) => unknown }
    const good = script['seed.export']
    const keys: string[] = []
    script['seed.export'] = ({ keyBase64 }) => {
      keys.push(keyBase64)
      throw new HotsiteError('seed-key-lost', `no room for ${keyBase64}`)
    }
    const failed = await test.job((await test.service.exportSeed('shop', seed)).jobId)
    expect(failed).toMatchObject({ state: 'failed', error: { message: 'no room for [removed]' } })
    expect(await test.service.showVm('shop')).toMatchObject({ state: 'awaitingSeed', seed: null })
    expect((await test.service.status()).needsAttention).toContainEqual(
      expect.objectContaining({ command: 'hotsite vm export-seed shop --folder FOLDER' }),
    )
    script['seed.export'] = good
    expect((await test.job((await test.service.exportSeed('shop', seed)).jobId)).state).toBe('succeeded')
    expect(a.agent.seedKeys).toEqual(keys)
    expect((await everythingSaid(test)).includes(keys[0] ?? 'none')).toBe(false)
    await expect(
      test.service.exportSeed('shop', { ...seed, policy: { compression: false } }),
    ).rejects.toMatchObject({ code: 'vm-already-protected' })
  })

  it('a seed that lost parts on the way is imported as far as it goes, and says what is missing', async () => {
    await using test = await TestCoordinator.start()
    const { b } = await pairedSites(test)
    await test.job((await test.service.exportSeed('shop', seed)).jobId)
    b.agent.seedProblems = ['part 2 is missing']
    const job = await test.job((await test.service.importSeed('shop', { folder: '/mnt/b' })).jobId)
    expect(job.state).toBe('succeeded')
    const told = 'not complete: part 2 is missing. What they held is sent over the network'
    expect(job.steps[0]?.observed?.['warning']).toContain(told)
    const events = await test.service.listEvents({ limit: 50 })
    expect(events.find(({ code }) => code === 'seed-incomplete')?.message).toContain(told)
  })

  it('cancelled: the first export leaves the VM as it was, an import waits for its seed again', async () => {
    await using test = await TestCoordinator.start()
    const { service } = test
    const { a, b } = await pairedSites(test)
    a.agent.server.hold.add('seed.export')
    const first = await service.exportSeed('shop', seed)
    await eventually(async () => a.agent.server.holding > 0, 'the export')
    expect((await service.exportSeed('shop', seed).catch((error: unknown) => error)) as object).toMatchObject(
      {
        jobId: first.jobId,
      },
    )
    await service.cancelJob(first.jobId)
    expect((await test.job(first.jobId)).state).toBe('cancelled')
    expect(await service.showVm('shop')).toMatchObject({ state: 'unprotected' })
    expect(await keyRows(test)).toBe(0)
    a.agent.server.release()

    await test.job((await service.exportSeed('shop', seed)).jobId)
    a.agent.copies = false
    const second = await service.importSeed('shop', { folder: '/mnt/b' })
    await test.job(second.jobId, ({ steps }) => steps[2]?.state === 'running')
    await service.cancelJob(second.jobId)
    expect((await test.job(second.jobId)).state).toBe('cancelled')
    expect(a.agent.source).toBeUndefined()
    expect(await service.showVm('shop')).toMatchObject({ state: 'awaitingSeed', seed: { files: 2 } })
    expect(await keyRows(test)).toBe(1)
    a.agent.copies = true
    expect((await test.job((await service.importSeed('shop', { folder: '/mnt/b' })).jobId)).state).toBe(
      'succeeded',
    )
    expect(b.agent.seedKeys).toHaveLength(2)
  })

  it('wrong order, and giving it up: refused with the reason; the key goes with the protection', async () => {
    await using test = await TestCoordinator.start()
    const { service } = test
    const { a } = await pairedSites(test)
    await expect(service.importSeed('shop', { folder: '/mnt/b' })).rejects.toMatchObject({
      code: 'vm-not-protected',
    })
    await test.job((await service.exportSeed('shop', seed)).jobId)
    await expect(service.protect('shop', {})).rejects.toMatchObject({ code: 'vm-already-protected' })
    await expect(service.pause('shop')).rejects.toThrow('pause of shop: the VM is waiting for its seed')
    expect((await test.job((await service.unprotect('shop', { keepReplica: false })).jobId)).state).toBe(
      'succeeded',
    )
    expect(await keyRows(test)).toBe(0)
    expect((await test.job((await service.protect('shop', {})).jobId)).state).toBe('succeeded')
    await expect(service.importSeed('shop', { folder: '/mnt/b' })).rejects.toMatchObject({
      code: 'operation-not-allowed',
    })
    expect(a.agent.source).toBeDefined()
  })

  it('a key sealed under a vault key that is gone: the import says so, and an export makes a new one', async () => {
    await using test = await TestCoordinator.start()
    const { a, b } = await pairedSites(test)
    await test.job((await test.service.exportSeed('shop', seed)).jobId)
    await using store = openStore(test.dataDir)
    await store.db
      .updateTable('seed_keys')
      .set({ sealed: new Uint8Array(60) })
      .execute()
    const failed = await test.job((await test.service.importSeed('shop', { folder: '/mnt/b' })).jobId)
    expect(failed).toMatchObject({ state: 'failed', error: { code: 'seed-key-lost' } })
    expect(b.agent.seedKeys).toEqual([])
    expect((await test.job((await test.service.exportSeed('shop', seed)).jobId)).state).toBe('succeeded')
    expect(a.agent.seedKeys[1]).not.toBe(a.agent.seedKeys[0])
    expect((await test.job((await test.service.importSeed('shop', { folder: '/mnt/b' })).jobId)).state).toBe(
      'succeeded',
    )
  })
})
