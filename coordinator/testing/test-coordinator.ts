/** A coordinator in a temporary folder with two scripted sites, real sockets and a real database. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Clock, systemClock } from '#shared/clock.ts'
import type { CrashPoint } from '#shared/crash-point.ts'
import { serverId, type VaultId, vaultId } from '#shared/ids.ts'
import { type Logger, silentLog } from '#shared/log.ts'
import { systemRng } from '#shared/rng.ts'
import { generateKeys } from '#shared/trust/keys.ts'
import { issueMembership } from '#shared/trust/membership.ts'
import type { CoordinatorService } from '../admin/service.ts'
import type { JobView, VmView } from '../admin/views.ts'
import { type Coordinator, startCoordinator } from '../coordinator.ts'
import type { CoordinatorLimits } from '../limits.ts'
import { loadVaultKey } from '../registration/vault-key.ts'
import { openStore } from '../store/open.ts'
import { putServer } from '../store/servers.ts'
import { quickLimits } from './quick-limits.ts'
import { ScriptedAgent } from './scripted-agent.ts'
import { ScriptedProvider } from './scripted-provider.ts'
import type { Enrolled, ScriptedServer } from './scripted-server.ts'
import { type SiteNames, siteA, siteB, testPolicy } from './scripted-site.ts'

export interface Site {
  readonly names: SiteNames
  readonly provider: ScriptedProvider
  readonly agent: ScriptedAgent
}

export interface StartOptions {
  readonly clock?: Clock
  readonly crashPoint?: CrashPoint
  readonly log?: Logger
  readonly limits?: Partial<CoordinatorLimits>
}

export class TestCoordinator implements AsyncDisposable {
  readonly dataDir = mkdtempSync(join(tmpdir(), 'hotsite-coordinator-'))
  #coordinator: Coordinator | undefined
  #port = 0
  vaultId: VaultId | undefined
  readonly servers: ScriptedServer[] = []
  readonly agents = new Map<string, ScriptedAgent>()

  static async start(options: StartOptions = {}): Promise<TestCoordinator> {
    const test = new TestCoordinator()
    await test.start(options)
    const vault = await test.service.createVault({ name: 'main', region: 'here', subscription: 'dev' })
    test.vaultId = vaultId.parse(vault.vaultId)
    return test
  }

  get service(): CoordinatorService {
    if (!this.#coordinator) throw new Error('the coordinator is not running')
    return this.#coordinator.service
  }

  get dialled() {
    if (!this.#coordinator) throw new Error('the coordinator is not running')
    return { port: this.#coordinator.channelPort, certificatePem: this.#coordinator.certificatePem }
  }

  async start({
    clock = systemClock,
    crashPoint,
    log = silentLog,
    limits,
  }: StartOptions = {}): Promise<void> {
    this.#coordinator = await startCoordinator({
      config: {
        dataDir: this.dataDir,
        listen: { host: '127.0.0.1', port: this.#port },
        registration: { host: '127.0.0.1', port: 0 },
      },
      clock,
      rng: systemRng,
      log,
      limits: { ...quickLimits, ...limits },
      ...(crashPoint ? { crashPoint } : {}),
    })
    this.#port = this.#coordinator.channelPort
  }

  async stop(): Promise<void> {
    await this.#coordinator?.[Symbol.asyncDispose]()
    this.#coordinator = undefined
  }

  /** Stops, starts again and lets the servers that were connected connect again. */
  async restart(options: StartOptions = {}): Promise<void> {
    const connected = this.servers.filter((server) => server.connected)
    await this.stop()
    await this.start(options)
    await Promise.all(connected.map((server) => server.connect(this.dialled)))
  }

  /** A membership and its row, as registration would have made them. */
  async enroll(name: string, kind: 'provider' | 'agent'): Promise<Enrolled> {
    if (!this.vaultId) throw new Error('no vault')
    const key = loadVaultKey(this.dataDir, this.vaultId)
    const keys = generateKeys()
    const id = serverId.parse(`${kind}-${name}`)
    const now = Date.now()
    const common = { vaultId: this.vaultId, serverId: id, kind, name, generation: key.generation }
    const expiresAtMs = now + 86_400_000 * 300
    await using store = openStore(this.dataDir)
    await putServer(store.db, {
      ...common,
      host: name,
      publicKey: Buffer.from(keys.publicKey).toString('base64'),
      registeredAtMs: now,
      membershipExpiresAtMs: expiresAtMs,
    })
    const issued = { ...common, publicKey: keys.publicKey, issuedAtMs: now, expiresAtMs }
    return {
      vaultId: this.vaultId,
      vaultPublicKey: key.publicKey,
      serverId: id,
      membership: issueMembership(issued, key.secretKey),
      keys,
    }
  }

  async addSite(names: SiteNames): Promise<Site> {
    const provider = new ScriptedProvider(names, await this.enroll(names.vmmServer, 'provider'))
    const agent = new ScriptedAgent(names, await this.enroll(names.host, 'agent'), this.agents)
    this.servers.push(provider.server, agent.server)
    await provider.server.connect(this.dialled)
    await agent.server.connect(this.dialled)
    provider.reportInventory()
    agent.reportAgent()
    return { names, provider, agent }
  }

  /** Waits for a job to end, or to reach what `until` says. */
  async job(id: string, until: (job: JobView) => boolean = () => false): Promise<JobView> {
    let job = await this.service.showJob(id)
    return eventually(
      async () => {
        job = await this.service.showJob(id)
        return job.endedAtMs !== null || until(job) ? job : undefined
      },
      () => `the end of job ${JSON.stringify(job, null, 1)}`,
    )
  }

  async vm(name: string, until: (vm: VmView) => boolean): Promise<VmView> {
    return eventually(async () => {
      const vm = await this.service.showVm(name).catch(() => undefined)
      return vm && until(vm) ? vm : undefined
    }, `VM ${name}`)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.servers.map((server) => server.disconnect()))
    await this.stop()
    rmSync(this.dataDir, { recursive: true, force: true })
  }
}

/** Two sites, paired, with VM "shop" running at the first. */
export async function pairedSites(test: TestCoordinator): Promise<{ a: Site; b: Site }> {
  const a = await test.addSite(siteA)
  const b = await test.addSite(siteB)
  a.provider.addVm('shop')
  a.provider.reportInventory()
  await test.vm('shop', () => true)
  await eventually(async () => {
    const clouds = await test.service.listClouds()
    return clouds.length === 2 && clouds.every(({ hosts }) => hosts.every((host) => host.agentConnected))
  }, 'both clouds')
  await test.service.pairClouds({
    source: 'gold',
    target: 'silver',
    policy: testPolicy,
    networkMap: { blue: 'green' },
  })
  return { a, b }
}

export async function protectedShop(test: TestCoordinator): Promise<{ a: Site; b: Site }> {
  const sites = await pairedSites(test)
  const job = await test.job((await test.service.protect('shop', {})).jobId)
  if (job.state !== 'succeeded') throw new Error(`protect ${job.state}: ${JSON.stringify(job, null, 1)}`)
  return sites
}

/** Looks until something is found; fails after ten seconds with what was waited for. */
export async function eventually<T>(
  look: () => Promise<T | undefined | false>,
  what: string | (() => string),
): Promise<T> {
  const deadline = performance.now() + 10_000
  for (;;) {
    const found = await look()
    if (found !== undefined && found !== false) return found
    if (performance.now() > deadline)
      throw new Error(`waited in vain for ${typeof what === 'string' ? what : what()}`)
    await systemClock.sleep(15)
  }
}
