import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { systemClock } from '#shared/clock.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { vaultId } from '#shared/ids.ts'
import { silentLog } from '#shared/log.ts'
import { systemRng } from '#shared/rng.ts'
import { loadCoordinatorConfig } from './config.ts'
import { startCoordinator } from './coordinator.ts'
import { loadVaultKey, vaultKeyPath } from './registration/vault-key.ts'
import type { ScriptedAgent } from './testing/scripted-agent.ts'
import { eventually, pairedSites, protectedShop, TestCoordinator } from './testing/test-coordinator.ts'

const on = (dataDir: string) => ({
  config: {
    dataDir,
    listen: { host: '127.0.0.1', port: 0 },
    registration: { host: '127.0.0.1', port: 0 },
  },
  clock: systemClock,
  rng: systemRng,
  log: silentLog,
})

describe('starting', () => {
  it('two coordinators on one data folder: the second is refused, and the first goes on', async () => {
    await using test = await TestCoordinator.start()
    await expect(startCoordinator(on(test.dataDir))).rejects.toMatchObject({ code: 'data-dir-in-use' })
    expect(await test.service.listVaults()).toHaveLength(1)
    await test.stop()
    await (await startCoordinator(on(test.dataDir)))[Symbol.asyncDispose]()
  })
  it('an occupied port is named, and the data folder is free again', async () => {
    await using test = await TestCoordinator.start()
    const dataDir = mkdtempSync(join(tmpdir(), 'hotsite-second-'))
    const options = on(dataDir)
    const listen = { host: '127.0.0.1', port: test.dialled.port }
    await expect(
      startCoordinator({ ...options, config: { ...options.config, listen } }),
    ).rejects.toMatchObject({
      code: 'channel-cannot-listen',
    })
    await (await startCoordinator(options))[Symbol.asyncDispose]()
    rmSync(dataDir, { recursive: true, force: true })
  })
  it('reads its configuration and refuses an unknown key', () => {
    const dir = mkdtempSync(join(tmpdir(), 'hotsite-config-'))
    const path = join(dir, 'coordinator.yaml')
    writeFileSync(path, 'dataDir: data\nlisten: { host: 0.0.0.0 }\nadmin: { socket: a.sock }\n')
    expect(loadCoordinatorConfig(path)).toMatchObject({
      dataDir: join(dir, 'data'),
      listen: { host: '0.0.0.0', port: 8443 },
      registration: { host: '0.0.0.0', port: 8444 },
      admin: { socket: join(dir, 'a.sock') },
    })
    writeFileSync(path, 'dataDir: data\nlisten: { host: 0.0.0.0 }\nlisen: 1\n')
    expect(() => loadCoordinatorConfig(path)).toThrow(/lisen/)
    expect(() => loadCoordinatorConfig(`${path}.not`)).toThrow(
      expect.objectContaining({ code: 'config-missing' }) as Error,
    )
    rmSync(dir, { recursive: true, force: true })
  })
})

describe('vaults and servers', () => {
  it('a vault survives a restart, its key is a file of mode 0600 and in no answer (I15)', async () => {
    await using test = await TestCoordinator.start()
    const keyPath = join(test.dataDir, 'vaults', String(test.vaultId), 'key.json')
    expect(statSync(keyPath).mode & 0o777).toBe(0o600)
    const secret = (JSON.parse(readFileSync(keyPath, 'utf8')) as { secretKey: string }).secretKey
    await test.restart()
    const vaults = await test.service.listVaults()
    expect(vaults).toMatchObject([{ name: 'main', keyGeneration: 1, certificate: null }])
    expect(JSON.stringify(vaults)).not.toContain(secret)
    for (const name of ['coordinator.db', 'coordinator.db-wal'])
      expect(readFileSync(join(test.dataDir, name)).includes(secret)).toBe(false)
    await expect(
      test.service.createVault({ name: 'main', region: '', subscription: '' }),
    ).rejects.toMatchObject({
      code: 'vault-name-taken',
    })
    await expect(test.service.issueCredentials('main')).rejects.toMatchObject({
      code: 'vault-certificate-missing',
    })
    await expect(test.service.showVault('other')).rejects.toMatchObject({ code: 'vault-unknown' })
  })
  it('a removed server is dropped at once and cannot come back', async () => {
    await using test = await TestCoordinator.start()
    const { b } = await pairedSites(test)
    await test.service.removeServer('host-b')
    await eventually(async () => !b.agent.server.connected, 'the channel to close')
    await expect(b.agent.server.connect(test.dialled)).rejects.toMatchObject({ code: 'membership-revoked' })
    await expect(test.service.showServer('host-b')).rejects.toMatchObject({ code: 'server-unknown' })
    const clouds = await test.service.listClouds()
    expect(clouds.find(({ cloud }) => cloud === 'silver')?.hosts).toEqual([
      { name: 'host-b', agentConnected: null },
    ])
  })
  it('whom was removed is told to every other server: at once, at its return, until it took it; not once it is told', async () => {
    await using test = await TestCoordinator.start()
    const { a, b } = await pairedSites(test)
    await a.agent.server.disconnect()
    b.agent.failures.set('trust.update', new HotsiteError('disk-full', 'no room'))
    await test.service.removeServer('vmm-a')
    const told = (agent: ScriptedAgent) => agent.server.received.filter(({ kind }) => kind === 'trust.update')
    await eventually(async () => told(b.agent).length >= 2, 'the list to be told again')
    expect(b.agent.refuses).toEqual([])
    b.agent.failures.clear()
    await eventually(async () => b.agent.refuses.length === 1, 'the list to be taken')
    expect(told(b.agent).at(-1)?.request).toEqual({ revokedServerIds: ['provider-vmm-a'], generation: 1 })
    expect(told(a.agent)).toEqual([])
    await a.agent.server.connect(test.dialled)
    await eventually(async () => a.agent.refuses[0] === 'provider-vmm-a', 'the list at its return')
    const count = told(b.agent).length
    b.agent.reportAgent()
    await test.service.removeServer('host-a')
    await eventually(async () => b.agent.refuses.length === 2, 'the longer list')
    await eventually(async () => !a.agent.server.connected && !a.provider.server.connected, 'them to be gone')
    expect(told(b.agent)).toHaveLength(count + 1)
    await test.restart()
    await eventually(async () => told(b.agent).length === count + 2, 'the list after a restart')
    expect(b.agent.refuses).toEqual(expect.arrayContaining(['agent-host-a', 'provider-vmm-a']))
  })
  it('a regenerated vault key drops everyone, and their memberships are void', async () => {
    await using test = await TestCoordinator.start()
    const { a } = await pairedSites(test)
    const before = await test.service.showVault('main')
    const after = await test.service.regenerateKey('main')
    expect(after).toMatchObject({ keyGeneration: 2 })
    expect(after.publicKeyBase64).not.toBe(before.publicKeyBase64)
    await eventually(async () => !a.agent.server.connected, 'the channel to close')
    await expect(a.agent.server.connect(test.dialled)).rejects.toMatchObject({
      code: 'membership-generation',
    })
    const { needsAttention } = await test.service.status()
    expect(needsAttention.filter(({ command }) => command?.startsWith('hotsite register'))).toHaveLength(4)
  })
})

describe('a vault key file and its row', () => {
  it('a crash between the two: the next start goes by the file', async () => {
    await using test = await TestCoordinator.start()
    const { a } = await protectedShop(test)
    for (const server of test.servers) await server.disconnect()
    await test.restart({
      crashPoint(name) {
        if (name === 'vault-key-written') throw new Error('power cut')
      },
    })
    await expect(test.service.regenerateKey('main')).rejects.toThrow('power cut')
    expect((await test.service.showVault('main')).keyGeneration).toBe(1)
    await test.restart()
    const vault = await test.service.showVault('main')
    const key = loadVaultKey(test.dataDir, vaultId.parse(vault.vaultId))
    expect(vault).toMatchObject({
      keyGeneration: 2,
      publicKeyBase64: Buffer.from(key.publicKey).toString('base64'),
    })
    const events = await test.service.listEvents({ limit: 5 })
    expect(events.map(({ code }) => code)).toContain('vault-key-regenerated')
    await expect(a.agent.server.connect(test.dialled)).rejects.toMatchObject({
      code: 'membership-generation',
    })
    await test.restart()
    const again = await test.service.listEvents({ limit: 100 })
    expect(again.filter(({ code }) => code === 'vault-key-regenerated')).toHaveLength(1)
  })
  it('an old key file from a backup is critical, and no generation is used twice', async () => {
    await using test = await TestCoordinator.start()
    const { vaultId: id } = await test.service.showVault('main')
    const path = vaultKeyPath(test.dataDir, vaultId.parse(id))
    const backup = readFileSync(path)
    await test.service.regenerateKey('main')
    await test.stop()
    writeFileSync(path, backup)
    await test.start()
    const [event] = await test.service.listEvents({ limit: 1 })
    expect(event).toMatchObject({ severity: 'critical', code: 'vault-key-outdated' })
    expect(await test.service.regenerateKey('main')).toMatchObject({ keyGeneration: 3 })
  })
})

describe('what passes through the coordinator', () => {
  it('is counted for each server, and says who is connected', async () => {
    await using test = await TestCoordinator.start()
    const { b } = await protectedShop(test)
    const server = await eventually(async () => {
      const view = await test.service.showServer('host-b')
      return view.bytesReceived > 500 && view.bytesSent > 500 ? view : undefined
    }, 'the counters')
    expect(server).toMatchObject({ kind: 'agent', host: 'host-b', connected: true })
    expect(server.bytesReceived).toBeLessThan(100_000)
    await b.agent.server.disconnect()
    const away = await eventually(async () => {
      const view = await test.service.showServer('host-b')
      return view.connected ? undefined : view
    }, 'the agent to be gone')
    expect(away.bytesReceived).toBeGreaterThanOrEqual(server.bytesReceived)
    const { verdict, servers, needsAttention } = await test.service.status()
    expect({ verdict, servers }).toEqual({ verdict: 'attention', servers: { total: 4, connected: 3 } })
    expect(needsAttention.map(({ text }) => text).join()).toContain('agent host-b is not connected')
  })
})

describe('the status', () => {
  it('shows the VMs nobody protects, without replicas and tests, and is no worse for them', async () => {
    await using test = await TestCoordinator.start()
    const { service } = test
    const { a } = await pairedSites(test)
    const before = await service.status()
    expect(before.verdict).toBe('nothing-protected')
    expect(before.vms.map(({ name, vmId }) => [name, vmId])).toEqual([['shop', null]])
    await test.job((await service.protect('shop', {})).jobId)
    a.provider.addVm('mail')
    a.provider.reportInventory()
    await test.vm('mail', () => true)
    await test.job((await service.testFailover('shop', { point: 'latest', network: 'lab' })).jobId)
    const { vms, verdict, needsAttention } = await service.status()
    expect(vms.map(({ name, vmId }) => [name, vmId !== null])).toEqual([
      ['mail', false],
      ['shop', true],
    ])
    expect(verdict).toBe('safe')
    expect(JSON.stringify(needsAttention)).not.toContain('mail')
  })
})
