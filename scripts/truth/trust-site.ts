/** A coordinator, two sites with a provider and an agent each, all registered for real, in one process. */
import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { VmView } from '#coordinator/admin/views.ts'
import { type Coordinator, startCoordinator } from '#coordinator/coordinator.ts'
import { providerConfig } from '#provider-agent/config.ts'
import { startProvider } from '#provider-agent/provider.ts'
import { type Agent, startAgent } from '#recovery-agent/agent.ts'
import { resolveAgentConfig } from '#recovery-agent/config.ts'
import { systemClock } from '#shared/clock.ts'
import { noCrash } from '#shared/crash-point.ts'
import type { FolderVm } from '#shared/folder/layout.ts'
import { makeTestFabric, type TestFabric } from '#shared/folder/testing/test-fabric.ts'
import type { VmId } from '#shared/ids.ts'
import { silentLog } from '#shared/log.ts'
import { replicationPolicy } from '#shared/messages/policy.ts'
import { systemRng } from '#shared/rng.ts'
import { loadIdentity, type ServerIdentity } from '#shared/trust/identity-store.ts'
import { registerServer } from '#shared/trust/register.ts'
import { dayMs, makeCertificate } from '#shared/trust/testing/offending-certificates.ts'

const reconnect = { minMs: 10, maxMs: 100 }
const parts = { clock: systemClock, rng: systemRng, log: silentLog }

export class TrustSite implements AsyncDisposable {
  readonly dir = mkdtempSync(join(tmpdir(), 'hotsite-trust-'))
  readonly fabrics = { east: fabricOf('east'), west: fabricOf('west') }
  readonly vm: FolderVm
  readonly agents = new Map<Host, Agent>()
  readonly #ports = new Map<Host, number>()
  readonly #providers = new Map<Host, { stop: AbortController; done: Promise<void> }>()
  #coordinator: Coordinator | undefined
  #channelPort = 0
  #certificate = ''

  constructor() {
    this.vm = this.fabrics.east.addVm({ host: 'east', name: 'shop', diskBytes: [4 << 20], command: ['true'] })
  }

  /** Everything runs, and VM "shop" is protected from east to west. */
  static async start(): Promise<TrustSite> {
    const site = new TrustSite()
    await site.startCoordinator()
    const { certificatePem, privateKeyPem } = await makeCertificate({
      notBefore: new Date(Date.now() - dayMs),
      notAfter: new Date(Date.now() + 30 * dayMs),
    })
    site.#certificate = privateKeyPem + certificatePem
    await site.service.createVault({ name: 'main', region: 'here', subscription: 'dev', certificatePem })
    for (const host of hosts) {
      await site.register(host, 'provider')
      await site.register(host, 'agent')
      site.startProvider(host)
      await site.startAgent(host)
    }
    await site.allConnected()
    const policy = replicationPolicy.parse({ copyFrequencySeconds: 900 })
    await until('the clouds', async () => {
      const clouds = (await site.service.listClouds()).flatMap((cloud) => cloud.hosts)
      return clouds.length === 2 && clouds.every(({ agentConnected }) => agentConnected === true)
    })
    await site.service.pairClouds({ source: 'cloud-east', target: 'cloud-west', policy, networkMap: {} })
    const { jobId } = await site.service.protect('shop', {})
    await until('the end of protect', async () => {
      const job = await site.service.showJob(jobId)
      if (job.endedAtMs !== null && job.state !== 'succeeded') throw new Error(JSON.stringify(job, null, 1))
      return job.state === 'succeeded'
    })
    return site
  }

  get service() {
    if (!this.#coordinator) throw new Error('the coordinator is stopped')
    return this.#coordinator.service
  }

  agent(host: Host): Agent {
    const agent = this.agents.get(host)
    if (!agent) throw new Error(`the agent of ${host} is stopped`)
    return agent
  }

  dataDir(host: Host, kind: Kind): string {
    return join(this.dir, `${kind}-${host}`)
  }

  identity(host: Host, kind: Kind): ServerIdentity {
    return loadIdentity(this.dataDir(host, kind))
  }

  async startCoordinator(): Promise<void> {
    this.#coordinator = await startCoordinator({
      ...parts,
      config: {
        dataDir: join(this.dir, 'coordinator'),
        listen: { host: '127.0.0.1', port: this.#channelPort },
        registration: { host: '127.0.0.1', port: 0 },
      },
      limits: { jobPollMs: 200, keeperMs: 100, fenceRetryMs: 100 },
    })
    this.#channelPort = this.#coordinator.channelPort
  }

  async stopCoordinator(): Promise<void> {
    await this.#coordinator?.[Symbol.asyncDispose]()
    this.#coordinator = undefined
  }

  async register(host: Host, kind: Kind, replace = false): Promise<ServerIdentity> {
    const { content } = await this.service.issueCredentials('main')
    const credentialsPath = join(this.dir, 'credentials.json')
    writeFileSync(credentialsPath, content)
    mkdirSync(this.dataDir(host, kind), { recursive: true })
    return registerServer({
      credentialsPath,
      keyAndCertificate: { pem: this.#certificate },
      kind,
      name: `${kind}-${host}`,
      host,
      dataDir: this.dataDir(host, kind),
      clock: systemClock,
      replace,
    })
  }

  startProvider(host: Host): void {
    const stop = new AbortController()
    const config = providerConfig.parse({
      name: `provider-${host}`,
      dataDir: this.dataDir(host, 'provider'),
      fabric: { driver: 'folder', root: this.fabrics[host].root },
      reconnect,
    })
    const provider = startProvider({ ...parts, config, identity: this.identity(host, 'provider') })
    this.#providers.set(host, { stop, done: provider.run(stop.signal) })
  }

  async stopProvider(host: Host): Promise<void> {
    const provider = this.#providers.get(host)
    this.#providers.delete(host)
    provider?.stop.abort()
    await provider?.done
  }

  async startAgent(host: Host): Promise<void> {
    const config = {
      name: `agent-${host}`,
      dataDir: this.dataDir(host, 'agent'),
      hypervisor: { driver: 'folder' as const, root: this.fabrics[host].root, host },
      listen: { host: '127.0.0.1', port: this.#ports.get(host) ?? 0 },
      reconnect,
    }
    const agent = await startAgent({
      ...parts,
      config: resolveAgentConfig(config, join(this.dir, 'config.yaml')),
      identity: this.identity(host, 'agent'),
      crashPoint: noCrash,
    })
    this.#ports.set(host, agent.listen.port)
    this.agents.set(host, agent)
  }

  async stopAgent(host: Host): Promise<void> {
    const agent = this.agents.get(host)
    this.agents.delete(host)
    await agent?.[Symbol.asyncDispose]()
  }

  /** Stopped, registered again, started with what that gave. */
  async registerAgain(host: Host, { replace = false } = {}): Promise<void> {
    await this.stopAgent(host)
    await this.register(host, 'agent', replace)
    await this.startAgent(host)
  }

  async allConnected(): Promise<void> {
    await until('all to be connected', async () => {
      const servers = await this.service.listServers()
      return servers.length === 4 && servers.every(({ connected }) => connected)
    })
  }

  shop(): Promise<VmView> {
    return this.service.showVm('shop')
  }

  async vmId(): Promise<VmId> {
    return (await this.shop()).vmId as VmId
  }

  write(block: number, text: string): void {
    const fd = openSync(join(this.vm.dir, this.vm.file.disks[0]?.file ?? ''), 'r+')
    writeSync(fd, text, block * 65_536)
    closeSync(fd)
  }

  /** A copy cycle at the source; resolves when the target has its point. */
  async copyNow(vmId: VmId): Promise<number> {
    const copy = this.agent('east').handlers['replication.copyNow']({ vmId }, new AbortController().signal)
    return (await copy).point.seq
  }

  async newestAtWest(vmId: VmId): Promise<number> {
    const points = await this.agent('west').store.points(vmId)
    return Math.max(...points.map(({ seq }) => seq))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const host of hosts) {
      await this.stopAgent(host)
      await this.stopProvider(host)
    }
    await this.stopCoordinator()
    for (const host of hosts) await this.fabrics[host][Symbol.asyncDispose]()
    rmSync(this.dir, { recursive: true, force: true })
  }
}

export type Host = 'east' | 'west'
type Kind = 'provider' | 'agent'
const hosts: readonly Host[] = ['east', 'west']

function fabricOf(host: Host): TestFabric {
  const fabric = makeTestFabric({
    vmmServer: `provider-${host}`,
    clouds: [{ name: `cloud-${host}`, hosts: [host] }],
  })
  fabric.addHost(host)
  return fabric
}

/** Waits for a condition, never for a time. */
export async function until(what: string, look: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 60_000
  while (!(await look())) {
    if (performance.now() > deadline) throw new Error(`waited in vain for ${what}`)
    await systemClock.sleep(20)
  }
}
