import { join } from 'node:path'
import type { z } from 'zod'
import { jobView, pointView, vmView } from '#coordinator/admin/views.ts'
import { pathsIn } from '#recovery-agent/replica/names.ts'
import { diskId as parseDiskId, vmId as parseVmId } from '#shared/ids.ts'
import { eventually } from '#shared/testing/libvirt/eventually.ts'
import type { Lab } from '../lab-kit/lab.ts'
import { waitUntil } from '../lab-kit/processes.ts'
import { mib, type Screen, seconds } from '../tour/screen.ts'
import { guests, type KvmSite } from './kvm-site.ts'
import {
  isDatabaseAtPointClean,
  isDatabaseClean,
  isFileSystemClean,
  isOrderHeld,
  isPicture,
  type Orders,
  ordersIn,
} from './proof.ts'
import type { KvmTourResult } from './result.ts'

type Vm = z.infer<typeof vmView>
type Point = z.infer<typeof pointView>
type Job = z.infer<typeof jobView>

const CYCLE_TIMEOUT_MS = 120_000
const names = [guests.orders.name, guests.database.name]

/** The chapters of the demo with real guests, on a lab that is up. Throws at the first thing that is not as it must be. */
export class KvmTour {
  readonly #lab: Lab
  readonly #screen: Screen
  readonly #from: KvmSite
  readonly #to: KvmSite
  #freezeMillisMax = 0
  #guestStallMillisMax = 0

  constructor(lab: Lab, screen: Screen, { from, to }: { from: KvmSite; to: KvmSite }) {
    this.#lab = lab
    this.#screen = screen
    this.#from = from
    this.#to = to
  }

  async run(): Promise<Omit<KvmTourResult, 'seconds'>> {
    await this.#protect()
    const screenshot = await this.#testFailover()
    await this.#newPoints()
    const disaster = await this.#disaster()
    const clean = await this.#checkPoints()
    const found = {
      guestBooted: disaster.guestBooted,
      orderHeld: disaster.orderHeld,
      fsClean: clean.fileSystems,
      databaseClean: disaster.databaseClean && clean.database,
      screenshot,
    }
    return {
      ok: Object.values(found).every(Boolean),
      ...found,
      rpoSeconds: round(disaster.dataAgeMs / 1000),
      rtoSeconds: round(disaster.failoverMs / 1000),
      freezeMillisMax: round(this.#freezeMillisMax),
      guestStallMillisMax: this.#guestStallMillisMax,
    }
  }

  async #protect(): Promise<void> {
    this.#screen.chapter('Protect two guests that nobody prepared')
    await this.#hotsite(
      'cloud',
      'pair',
      'vmm-a/gold-a',
      'vmm-b/gold-b',
      ...['--network', 'prod-a=prod-b', '--copy-frequency', '30s'],
      ...['--retention-points', '15', '--retention-interval', '5m', '--app-consistent', '1'],
    )
    for (const name of names) {
      const job = await this.#job('vm', 'protect', name)
      const { totals } = await this.#vm(name)
      this.#screen.seen(
        `${name}: first copy in ${durationOf(job)}, ${mib(totals?.changedBytes ?? 0)} of data, ${mib(totals?.sentBytes ?? 0)} sent`,
      )
    }
    this.#screen.note('both go on writing; waiting for the next copy of what changed (every 30 s) …')
    await this.#newPoints()
    for (const name of names) {
      const { lastCycle } = await this.#vm(name)
      const atRest = (await this.#points(name)).some((point) => point.consistency === 'application')
      if (!atRest) throw new Error(`no application-consistent point of ${name}`)
      this.#screen.seen(
        `${name}: ${mib(lastCycle?.changedBytes ?? 0)} changed, ${mib(lastCycle?.sentBytes ?? 0)} sent; at rest for it, ${Math.round(lastCycle?.freezeMs ?? 0)} ms`,
      )
    }
  }

  async #testFailover(): Promise<string> {
    this.#screen.chapter('Test failover: a copy boots on an isolated network, nobody notices')
    const job = await this.#job('failover', 'test', guests.orders.name, '--network', 'isolated-b')
    const copy = `${guests.orders.name}-test`
    const found = await this.#orders(this.#to, copy)
    expectOrder(found)
    this.#screen.seen(
      `${copy} came up after ${durationOf(job)}; it found orders up to ${found.n1}, in their order`,
    )
    const picture = join(this.#lab.layout.dir, '..', 'test-failover.png')
    await this.#hotsite('job', 'picture', job.jobId, '--out', picture)
    if (!isPicture(picture)) throw new Error(`${picture} shows nothing`)
    this.#screen.seen(`its console: ${picture}`)
    const source = await this.#orders(this.#from, guests.orders.name)
    if (source.n <= found.n1) throw new Error('the source did not go on writing')
    await this.#job('failover', 'cleanup-test', guests.orders.name, '--notes', 'booted, orders complete')
    if ((await this.#to.domains()).includes(copy)) throw new Error('clean-up left the test VM behind')
    this.#screen.seen('cleaned up, nothing left behind, notes kept')
    return picture
  }

  async #layersOf(name: string, agent: string): Promise<string[]> {
    const vm = await this.#vm(name)
    const newest = (await this.#points(name)).reduce((best, point) => (best.seq > point.seq ? best : point))
    const paths = pathsIn(join(this.#lab.layout.agentDir(agent), 'data'))
    const disks = name === guests.orders.name ? ['vda', 'vdb'] : ['vda']
    return disks.map((disk) => paths.layer(parseVmId.parse(vm.vmId), parseDiskId.parse(disk), newest))
  }

  async #disaster() {
    this.#screen.chapter('Disaster: the host of site A is gone')
    const last = await this.#orders(this.#from, guests.orders.name)
    this.#guestStallMillisMax = last.slowestMs
    for (const name of names) this.#from.killQemu(name)
    await Promise.all([this.#lab.kill('agent-host-a1'), this.#lab.kill('provider-site-a')])
    const ages = await Promise.all(names.map(async (name) => (await this.#vm(name)).dataAgeMs ?? 0))
    const dataAgeMs = Math.max(...ages)
    this.#screen.seen(
      `both guests, host agent and provider of site A are dead; the newest data at site B is ${seconds(dataAgeMs)} old`,
    )
    let failoverMs = 0
    for (const name of names) {
      const job = await this.#job('failover', 'unplanned', name, '--yes')
      failoverMs = Math.max(failoverMs, durationMs(job))
      this.#screen.seen(`${name} boots on host-b1, its heartbeat seen after ${durationOf(job)}`)
    }
    const found = await this.#orders(this.#to, guests.orders.name)
    expectOrder(found)
    this.#screen.seen(`orders: found up to ${found.n1}, the last one at site A was ${last.n}`)
    const database = await this.#report(this.#to, guests.database.name)
    const databaseClean = isDatabaseClean(database)
    this.#screen.seen(`database, by its own check in the guest: ${database}`)
    return { guestBooted: true, orderHeld: isOrderHeld(found), databaseClean, dataAgeMs, failoverMs }
  }

  /** The points the guests were started from, by the tools of this machine. */
  async #checkPoints(): Promise<{ fileSystems: boolean; database: boolean }> {
    this.#screen.chapter('The same points, looked at from outside')
    const layers = await Promise.all(names.map((name) => this.#layersOf(name, 'host-b1')))
    const fileSystems = layers.flat().every(isFileSystemClean)
    this.#screen.seen(`e2fsck: ${fileSystems ? 'all file systems clean' : 'ERRORS'}`)
    const database = isDatabaseAtPointClean(layers[1]?.[0] ?? '')
    this.#screen.seen(
      `SQLite's integrity check: ${database ? 'ok, as many orders as its total says' : 'ERRORS'}`,
    )
    return { fileSystems, database }
  }

  async #orders(site: KvmSite, domain: string): Promise<Orders> {
    return ordersIn(await this.#report(site, domain))
  }

  async #report(site: KvmSite, domain: string): Promise<string> {
    let said = ''
    await eventually(`${domain} reports`, async () => {
      said = (await site.report(domain)) ?? ''
      return said.startsWith('recovered')
    })
    return said
  }

  async #newPoints(): Promise<void> {
    await Promise.all(
      names.map(async (name) => {
        const before = await this.#newestSeq(name)
        if (!(await waitUntil(async () => (await this.#newestSeq(name)) > before, CYCLE_TIMEOUT_MS, 500)))
          throw new Error(`no new recovery point of ${name} within ${CYCLE_TIMEOUT_MS / 1000} s`)
        const { lastCycle } = await this.#vm(name)
        this.#freezeMillisMax = Math.max(this.#freezeMillisMax, lastCycle?.freezeMs ?? 0)
      }),
    )
  }

  async #newestSeq(name: string): Promise<number> {
    return Math.max(0, ...(await this.#points(name)).map((point) => point.seq))
  }

  async #vm(name: string): Promise<Vm> {
    return vmView.parse(await this.#lab.cli('vm', 'show', name))
  }

  async #points(name: string): Promise<readonly Point[]> {
    return pointView.array().parse(await this.#lab.cli('point', 'list', name))
  }

  async #hotsite(...args: readonly string[]): Promise<unknown> {
    this.#screen.command(args.map((arg) => (/\s/.test(arg) ? `"${arg}"` : arg)).join(' '))
    return this.#lab.cli(...args)
  }

  async #job(...args: readonly string[]): Promise<Job> {
    return jobView.parse(await this.#hotsite(...args))
  }
}

function expectOrder(found: Orders): void {
  if (!isOrderHeld(found))
    throw new Error(`the guest found a state it never was in: n0=${found.n0}, n1=${found.n1}`)
}

const durationMs = (job: Job): number => (job.endedAtMs ?? job.createdAtMs) - job.createdAtMs
const durationOf = (job: Job): string => seconds(durationMs(job))
const round = (value: number): number => Math.round(value * 10) / 10
