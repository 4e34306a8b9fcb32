import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { CoordinatorService } from '../service.ts'
import type { CloudView, JobView, PointView, ServerView, StatusView, VaultView, VmView } from '../views.ts'
import { MemoryJobs } from './memory-jobs.ts'
import { sampleCloud, sampleNowMs, samplePoint, sampleServer, sampleVault, sampleVm } from './sample-views.ts'

/** The port, in memory: enough of a coordinator for the admin socket and the CLI to be tested against. */
export class MemoryService implements CoordinatorService {
  readonly jobs = new MemoryJobs()
  readonly vaults = new Map<string, VaultView>([['main', sampleVault()]])
  readonly servers = new Map<string, ServerView>([['host-a', sampleServer()]])
  readonly vms = new Map<string, VmView>([['shop', sampleVm()]])
  readonly points = new Map<string, PointView>([5, 6, 7].map((seq) => [`1.${seq}`, samplePoint(seq)]))
  clouds: CloudView[] = [sampleCloud(), sampleCloud({ vmmServer: 'vmm-b', cloud: 'silver', vmCount: 0 })]
  verdict: StatusView['verdict'] = 'safe'
  needsAttention: StatusView['needsAttention'] = []
  /** What was asked, with its arguments. */
  readonly calls: { readonly name: string; readonly args: readonly unknown[] }[] = []

  async createVault(request: Parameters<CoordinatorService['createVault']>[0]) {
    this.#note('createVault', request)
    if (this.vaults.has(request.name))
      throw new HotsiteError('file-exists', `there is a vault ${request.name}`)
    const { name, region, subscription } = request
    const vault = sampleVault({ vaultId: `vault-${this.vaults.size + 1}`, name, region, subscription })
    this.vaults.set(name, vault)
    return vault
  }
  async listVaults() {
    return [...this.vaults.values()]
  }
  async showVault(vault: string) {
    return take(this.vaults, vault, 'vault')
  }
  async setVaultCertificate(vault: string, certificate: string) {
    this.#note('setVaultCertificate', vault, certificate)
    const validity = { notBeforeMs: sampleNowMs, notAfterMs: sampleNowMs + 86_400_000 }
    const shown = { subject: 'CN=test', thumbprintSha256: 'ab'.repeat(32), ...validity }
    const changed = { ...take(this.vaults, vault, 'vault'), certificate: shown }
    this.vaults.set(vault, changed)
    return changed
  }
  async issueCredentials(vault: string) {
    take(this.vaults, vault, 'vault')
    return { fileName: `${vault}.credentials.json`, content: '{"token":"t"}', expiresAtMs: sampleNowMs }
  }
  async regenerateKey(vault: string) {
    this.#note('regenerateKey', vault)
    const before = take(this.vaults, vault, 'vault')
    const changed = { ...before, keyGeneration: before.keyGeneration + 1 }
    this.vaults.set(vault, changed)
    return changed
  }

  async listServers() {
    return [...this.servers.values()]
  }
  async showServer(server: string) {
    return take(this.servers, server, 'server')
  }
  async removeServer(server: string) {
    take(this.servers, server, 'server')
    this.servers.delete(server)
  }

  async listClouds() {
    return this.clouds
  }
  async pairClouds(request: Parameters<CoordinatorService['pairClouds']>[0]): Promise<CloudView> {
    this.#note('pairClouds', request)
    const { source, target, policy, networkMap } = request
    if (source === target) throw new HotsiteError('request-invalid', 'a cloud cannot be paired with itself')
    const pairing = { pairingId: 'pairing-1', other: target, policy, networkMap }
    const named = (cloud: CloudView) => [cloud.cloud, `${cloud.vmmServer}/${cloud.cloud}`].includes(source)
    const found = this.clouds.find(named)
    if (!found) throw new HotsiteError('not-found', `there is no cloud ${source}`)
    const paired: CloudView = { ...found, role: 'source', pairing }
    this.clouds = this.clouds.map((cloud) => (cloud === found ? paired : cloud))
    return paired
  }
  async unpairCloud(source: string) {
    this.#note('unpairCloud', source)
  }

  async listVms() {
    return [...this.vms.values()]
  }
  async showVm(vm: string) {
    return take(this.vms, vm, 'VM')
  }
  protect = this.#jobOf('protect', ['Prepare the replica', 'Send all blocks'])
  unprotect = this.#jobOf('unprotect', ['Remove the replica'])
  setPolicy = this.#jobOf('setPolicy', ['Tell the agents'])
  pause = this.#jobOf('pause', ['Pause'])
  resume = this.#jobOf('resume', ['Resume'])
  resync = this.#jobOf('resync', ['Compare', 'Send what differs'])
  verify = this.#jobOf('verify', ['Read at the source', 'Read at the target', 'Compare'])
  exportSeed = this.#jobOf('exportSeed', ['Write the seed'])
  importSeed = this.#jobOf('importSeed', ['Read the seed'])
  testFailover = this.#jobOf('testFailover', ['Make an overlay', 'Start the VM', 'See its heartbeat'])
  cleanupTest = this.#jobOf('cleanupTest', ['Remove the test VM'])
  plannedFailover = this.#jobOf('plannedFailover', ['Shut down', 'Send the last changes', 'Start'])
  unplannedFailover = this.#jobOf('unplannedFailover', ['Start'])
  changePoint = this.#jobOf('changePoint', ['Start again'])
  commit = this.#jobOf('commit', ['Commit'])
  reverse = this.#jobOf('reverse', ['Compare', 'Send what differs'])

  async approveResync(vm: string) {
    this.#note('approveResync', vm)
    if (!take(this.vms, vm, 'VM').resync)
      throw new HotsiteError('resync-not-waiting', `no resynchronization of ${vm} waits`)
  }
  async listPoints(vm: string) {
    take(this.vms, vm, 'VM')
    return [...this.points.values()]
  }
  async pinPoint(vm: string, point: string, pinned: boolean) {
    this.#note('pinPoint', vm, point, pinned)
    this.points.set(point, { ...take(this.points, point, 'recovery point'), pinned })
  }

  async listJobs({ limit }: { limit: number }) {
    return [...this.jobs.all.values()].reverse().slice(0, limit)
  }
  async showJob(job: string) {
    return this.jobs.get(job)
  }
  async showJobPicture(job: string) {
    return {
      job: this.jobs.get(job).jobId,
      takenAtMs: sampleNowMs,
      pngBase64: Buffer.from('PNG').toString('base64'),
    }
  }
  watchJob(job: string, signal: AbortSignal) {
    return this.jobs.watch(job, signal)
  }
  async cancelJob(job: string) {
    return this.jobs.cancel(job)
  }
  async listEvents({ limit }: { limit: number }) {
    const event = { eventId: 'e1', atMs: sampleNowMs, severity: 'warning' as const, vm: 'shop' }
    return [{ ...event, code: 'data-age', message: 'the data is older than the policy allows' }].slice(
      0,
      limit,
    )
  }
  async status(): Promise<StatusView> {
    const connected = [...this.servers.values()].filter((server) => server.connected).length
    return {
      vault: 'main',
      nowMs: sampleNowMs,
      version: '0.1.0',
      verdict: this.verdict,
      servers: { total: this.servers.size, connected },
      vms: await this.listVms(),
      needsAttention: this.needsAttention,
    }
  }

  #jobOf(name: string, steps: readonly string[]) {
    return async (vm: string, ...args: readonly unknown[]): Promise<JobView> => {
      this.#note(name, vm, ...args)
      const { currentJob } = take(this.vms, vm, 'VM')
      if (currentJob) throw new HotsiteError('vm-busy', `${vm} is busy with ${currentJob}`)
      return this.jobs.start(name, vm, steps)
    }
  }

  #note(name: string, ...args: readonly unknown[]): void {
    this.calls.push({ name, args })
  }
}

function take<Value>(all: ReadonlyMap<string, Value>, name: string, what: string): Value {
  const found = all.get(name)
  if (found === undefined) throw new HotsiteError('not-found', `there is no ${what} ${name}`)
  return found
}
