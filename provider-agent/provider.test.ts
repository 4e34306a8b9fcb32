import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { stringify } from 'yaml'
import type { Message } from '#shared/channel/message.ts'
import type { Channel } from '#shared/channel/port.ts'
import { type TestListener, type TestVault, testListener, testVault } from '#shared/channel/testing.ts'
import { lockDataDir } from '#shared/data-dir.ts'
import { makeTestFabric, type TestFabric } from '#shared/folder/testing/test-fabric.ts'
import { serverId } from '#shared/ids.ts'
import { type InventoryReport, inventoryReport } from '#shared/messages/reports.ts'
import { saveIdentity } from '#shared/trust/identity-store.ts'
import { runProvider } from './main.ts'

interface Reply {
  readonly ok: boolean
  readonly document: Record<string, unknown>
}

/** The coordinator's end of one connection. */
class TestCoordinator {
  readonly channel: Channel
  readonly #messages: AsyncIterator<Message>

  constructor(channel: Channel) {
    this.channel = channel
    this.#messages = channel.messages()[Symbol.asyncIterator]()
  }

  async #next(): Promise<Message> {
    const { value, done } = await this.#messages.next()
    if (done) throw new Error('the provider closed the connection')
    if (value.kind === 'report') {
      await this.channel.send({ kind: 'reportAck', body: { reportSeq: value.body.reportSeq ?? 0 } })
    }
    return value
  }

  /** The first inventory from now on that fits. */
  async inventory(fits: (inventory: InventoryReport) => boolean = () => true): Promise<InventoryReport> {
    for (;;) {
      const message = await this.#next()
      if (message.kind !== 'report' || message.body.kind !== 'inventory') continue
      const inventory = inventoryReport.parse(JSON.parse(Buffer.from(message.body.json ?? []).toString()))
      if (fits(inventory)) return inventory
    }
  }

  async event(code: string): Promise<void> {
    for (;;) {
      const message = await this.#next()
      if (message.kind !== 'report' || message.body.kind !== 'event') continue
      if (JSON.parse(Buffer.from(message.body.json ?? []).toString()).code === code) return
    }
  }

  async command(commandId: string, kind: string, request: unknown): Promise<Reply> {
    const json = Buffer.from(JSON.stringify(request))
    await this.channel.send({ kind: 'command', body: { commandId, kind, json } })
    for (;;) {
      const message = await this.#next()
      if (message.kind !== 'commandResult' || message.body.commandId !== commandId) continue
      const document = JSON.parse(Buffer.from(message.body.json ?? []).toString())
      return { ok: message.body.ok ?? false, document }
    }
  }
}

describe('provider daemon', () => {
  let dir: string
  let fabric: TestFabric
  let vault: TestVault
  let listener: TestListener
  let configPath: string
  let dataDir: string
  const stops: { stop: AbortController; ended: Promise<void> }[] = []

  beforeEach(async () => {
    dir = mkdtempSync(join(tmpdir(), 'hotsite-provider-'))
    dataDir = join(dir, 'data')
    fabric = makeTestFabric({ clouds: [{ name: 'gold', hosts: ['host1'] }] })
    fabric.addHost('host1')
    vault = testVault()
    listener = await testListener(vault)
    configPath = join(dir, 'provider.yaml')
    writeConfig({})
  })
  afterEach(async () => {
    for (const { stop, ended } of stops.splice(0)) {
      stop.abort(new Error('test over'))
      await ended.catch(() => {})
    }
    await listener[Symbol.asyncDispose]()
    await fabric[Symbol.asyncDispose]()
    rmSync(dir, { recursive: true, force: true })
  })

  function writeConfig(more: Record<string, unknown>): void {
    const config = {
      name: 'vmm1',
      dataDir: 'data',
      fabric: { driver: 'folder', root: fabric.root },
      reconnect: { minMs: 10, maxMs: 100 },
      log: { dir: 'log' },
      ...more,
    }
    writeFileSync(configPath, stringify(config))
  }

  function register(kind: 'provider' | 'agent' = 'provider'): void {
    const self = vault.server('p1', kind)
    const { port, pinnedCertificatePem } = listener.dialOptions(self)
    mkdirSync(dataDir, { recursive: true })
    saveIdentity(dataDir, {
      ...self,
      vaultId: vault.vaultId,
      vaultName: 'vault',
      serverId: serverId.parse('p1'),
      kind,
      name: 'vmm1',
      vaultPublicKey: vault.keys.publicKey,
      generation: 1,
      coordinatorCertificatePem: pinnedCertificatePem,
      channelAddresses: [{ host: '127.0.0.1', port }],
      registeredAtMs: 1,
    })
  }

  function run() {
    const stop = new AbortController()
    const ended = runProvider(configPath, stop.signal)
    ended.catch(() => {})
    stops.push({ stop, ended })
    return { stop: () => stop.abort(new Error('stop')), ended }
  }
  const connection = async (index: number) => new TestCoordinator(await listener.channel(index))

  test('reports its inventory on connect and a change soon after', async () => {
    register()
    run()
    const coordinator = await connection(0)
    expect(await coordinator.inventory()).toMatchObject({ vmmServer: 'vmm1', version: '0.1.0', vms: [] })
    const vm = fabric.addVm({ name: 'orders' })
    const changedAtMs = performance.now()
    const inventory = await coordinator.inventory(({ vms }) => vms.length === 1)
    expect(performance.now() - changedAtMs).toBeLessThan(1_500)
    expect(inventory.vms[0]).toMatchObject({ fabricVmId: vm.file.id, cloud: 'gold' })
  })

  test('carries out commands, answers a repeat from memory, and says why one failed', async () => {
    register()
    const vm = fabric.addVm({ name: 'orders' })
    const fabricVmId = vm.file.id
    run()
    const coordinator = await connection(0)
    const start = { fabricVmId, heartbeatTimeoutMs: 10_000 }
    const started = await coordinator.command('c1', 'vm.start', start)
    expect(started).toMatchObject({ ok: true, document: { power: 'running', exists: true } })
    const observed = await coordinator.command('c2', 'vm.observe', { fabricVmId })
    expect(observed.document['heartbeatAgeMs']).not.toBeNull()
    const fence = { fabricVmId, epoch: 2, reason: 'elsewhere' }
    expect((await coordinator.command('c3', 'vm.fence', fence)).document).toMatchObject({ fenced: true })
    expect(await coordinator.command('c1', 'vm.start', start)).toEqual(started)
    expect(await coordinator.command('c4', 'vm.start', start)).toMatchObject({
      ok: false,
      document: { code: 'vm-fenced', details: { epoch: 2 } },
    })
    expect((await coordinator.command('c5', 'vm.stop', { vm: 1 })).document['code']).toBe('request-invalid')
    const agents = await coordinator.command('c6', 'replica.fence', { vmId: 'x', epoch: 1 })
    expect(agents.document['code']).toBe('command-unknown')
  })

  test('I4, I12: after a break and after a restart of the daemon everything is reported once more', async () => {
    register()
    const vm = fabric.addVm({ name: 'orders' })
    const first = run()
    const before = await connection(0)
    const start = { fabricVmId: vm.file.id, heartbeatTimeoutMs: 10_000 }
    const started = await before.command('c1', 'vm.start', start)
    before.channel.close()
    const again = await connection(1)
    expect((await again.inventory()).vms).toHaveLength(1)
    first.stop()
    await first.ended
    run()
    const after = await connection(2)
    expect((await after.inventory()).vms[0]?.observation.power).toBe('running')
    expect(await after.command('c1', 'vm.start', start)).toEqual(started)
  })

  test('a fabric that cannot be read any more is an event; the daemon lives on and recovers', async () => {
    register()
    run()
    const coordinator = await connection(0)
    await coordinator.inventory()
    const host1 = join(fabric.root, 'hosts', 'host1', 'host.yaml')
    writeFileSync(host1, 'memoryByte: 1\n')
    await coordinator.event('config-invalid')
    writeFileSync(host1, 'memoryBytes: 4711\n')
    await coordinator.inventory(({ hosts }) => hosts[0]?.memoryBytes === 4711)
  })

  test('a server that is not registered, or as something else, does not start', async () => {
    await expect(run().ended).rejects.toMatchObject({ code: 'not-registered' })
    register('agent')
    await expect(run().ended).rejects.toMatchObject({ code: 'not-registered' })
  })

  test('a second daemon on the same data folder is refused; after a clean stop it is free', async () => {
    register()
    const first = run()
    await connection(0)
    await expect(run().ended).rejects.toMatchObject({ code: 'data-dir-in-use' })
    first.stop()
    await first.ended
    lockDataDir(dataDir)[Symbol.dispose]()
  })

  test.each([
    [{ fabrik: {} }, 'config-invalid', /fabrik/],
    [{ fabric: { driver: 'xen', root: '.' } }, 'config-invalid', /fabric\.driver/],
    [{ fabric: { driver: 'folder', root: 'nowhere' } }, 'config-missing', /nowhere\/fabric\.yaml/],
  ])('configuration %j is refused by name', async (change, code, named) => {
    register()
    writeConfig(change)
    await expect(run().ended).rejects.toMatchObject({
      code,
      message: expect.stringMatching(named),
    })
  })
})
