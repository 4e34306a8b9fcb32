import { join } from 'node:path'
import type { z } from 'zod'
import { jobView, pointView, vmView } from '#coordinator/admin/views.ts'
import { pathsIn } from '#recovery-agent/replica/names.ts'
import { disksOf } from '#shared/folder/vm-file.ts'
import { vmId as parseVmId } from '#shared/ids.ts'
import { findGuest, guestDirs, guestName, isGuestRunning, killGuest } from '../lab-kit/guest.ts'
import type { Lab } from '../lab-kit/lab.ts'
import { waitUntil } from '../lab-kit/processes.ts'
import { readCounters } from '../workload/records.ts'
import { diskBytesIn, hasQemuImg, isIdentical, recoveredCounters } from './proof.ts'
import type { TourResult } from './result.ts'
import { mib, type Screen, seconds } from './screen.ts'

type Vm = z.infer<typeof vmView>
type Point = z.infer<typeof pointView>
type Job = z.infer<typeof jobView>

const cycleTimeoutMs = 90_000

/** What the chapters find out, gathered for the result. */
interface Findings {
  identical: boolean[]
  attested: boolean[]
  lostTransactions: number
  changedBytes: number
  sentBytes: number
  failoverMs: number
}

/** The chapters of the demo, on a lab that is up. Throws at the first thing that is not as it must be. */
export class Tour {
  readonly #lab: Lab
  readonly #screen: Screen
  readonly #found: Findings = {
    identical: [],
    attested: [],
    lostTransactions: 0,
    changedBytes: 0,
    sentBytes: 0,
    failoverMs: 0,
  }

  constructor(lab: Lab, screen: Screen) {
    this.#lab = lab
    this.#screen = screen
  }

  async run(): Promise<Omit<TourResult, 'seconds'>> {
    await this.#protect()
    await this.#testFailover()
    await this.#plannedFailover('host-a1', 'host-b1')
    await this.#reverse('the way back is open')
    this.#screen.chapter('Failback: the VM goes home')
    await this.#moveByPlan('host-b1', 'host-a1')
    await this.#reverse('protected as at the beginning')
    const disaster = await this.#disaster()
    await this.#siteReturns()
    const coordinatorDiskBytes = diskBytesIn(this.#lab.layout.coordinatorDir)
    const { identical, attested, lostTransactions, changedBytes, sentBytes, failoverMs } = this.#found
    const proved =
      identical.every(Boolean) &&
      attested.every(Boolean) &&
      lostTransactions === 0 &&
      coordinatorDiskBytes === 0
    return {
      ok: proved,
      identical: identical.length === 4 && identical.every(Boolean),
      comparedWith: hasQemuImg() ? 'qemu-img' : 'own reader',
      attested: attested.length > 0 && attested.every(Boolean),
      points: attested.length,
      testFailover: true,
      plannedFailover: true,
      unplannedFailover: true,
      failback: true,
      fenced: true,
      lostTransactions,
      dataAgeSeconds: round(disaster.dataAgeMs / 1000),
      changedBytes,
      sentBytes,
      failoverSeconds: round(failoverMs / 1000),
      unplannedFailoverSeconds: round(disaster.failoverMs / 1000),
      coordinatorDiskBytes,
    }
  }

  async #protect(): Promise<void> {
    this.#screen.chapter('Protect a VM that is being written to')
    await this.#hotsite(
      'cloud',
      'pair',
      'vmm-a/gold-a',
      'vmm-b/gold-b',
      '--network',
      'prod-a=prod-b',
      '--copy-frequency',
      '30s',
      '--retention-points',
      '3',
      '--retention-interval',
      '0s',
    )
    const job = await this.#job('vm', 'protect', guestName)
    const vm = await this.#vm()
    this.#screen.seen(
      `initial replication in ${durationOf(job)}: ${mib(vm.totals?.changedBytes ?? 0)} of data, ${mib(vm.totals?.sentBytes ?? 0)} sent`,
    )
    this.#screen.note('the VM goes on writing; waiting for the next copy of what changed (every 30 s) …')
    await this.#newPoint()
    const { lastCycle } = await this.#vm()
    this.#screen.seen(
      `copy cycle: ${mib(lastCycle?.changedBytes ?? 0)} changed, ${mib(lastCycle?.sentBytes ?? 0)} sent, the VM stood still for ${(lastCycle?.freezeMs ?? 0).toFixed(0)} ms`,
    )
    await this.#checkPoints()
  }

  async #testFailover(): Promise<void> {
    this.#screen.chapter('Test failover: a copy starts, nobody notices')
    const job = await this.#job('failover', 'test', guestName)
    const copy = guestDirs(this.#lab.layout).find(
      (vm) => vm.host === 'host-b1' && vm.file.name !== guestName && isGuestRunning(vm),
    )
    if (!copy) throw new Error('no test VM runs on host-b1')
    const found = recoveredCounters(copy.dir)
    expectOrder(found)
    this.#screen.seen(
      `${copy.file.name} came up on host-b1 in ${durationOf(job)}; it found orders up to ${found.n1}, in their order`,
    )
    if (!isGuestRunning(findGuest(this.#lab.layout, 'host-a1', guestName)))
      throw new Error('the source VM stopped during a test failover')
    await this.#job('failover', 'cleanup-test', guestName, '--notes', 'came up, orders complete')
    if (guestDirs(this.#lab.layout).some((vm) => vm.file.name === copy.file.name))
      throw new Error('clean-up left the test VM behind')
    this.#screen.seen('cleaned up, nothing left behind, notes kept')
  }

  async #plannedFailover(from: string, to: string): Promise<void> {
    this.#screen.chapter('Planned failover: shut down, send the rest, start there')
    await this.#moveByPlan(from, to)
  }

  async #moveByPlan(from: string, to: string): Promise<void> {
    const totalsBefore = await this.#totals()
    const job = await this.#job('failover', 'planned', guestName)
    // With its last delta, unless the direction was closed before anyone could ask.
    this.#add(largerOf(totalsBefore, await this.#totals()))
    this.#found.failoverMs = Math.max(this.#found.failoverMs, durationMs(job))
    const source = findGuest(this.#lab.layout, from, guestName)
    const target = findGuest(this.#lab.layout, to, guestName)
    if (isGuestRunning(source) || !isGuestRunning(target))
      throw new Error('the VM does not run where it should, and only there')
    const before = readCounters(disksOf(source).map((disk) => disk.path))
    const after = recoveredCounters(target.dir)
    expectOrder(after)
    this.#found.lostTransactions += before.n0 - after.n0
    this.#screen.seen(
      `runs on ${to} after ${durationOf(job)}; last order before ${before.n0}, first found after ${after.n0}: lost ${before.n0 - after.n0}`,
    )
    await this.#compare(from, to)
    await this.#job('failover', 'commit', guestName)
  }

  /** The source is off, so its disks are the truth; the failover's point is the newest. */
  async #compare(from: string, to: string): Promise<void> {
    const vm = await this.#vm()
    const points = await this.#points()
    const newest = points.reduce((best, point) => (best.seq > point.seq ? best : point))
    const vmId = parseVmId.parse(vm.vmId)
    const paths = pathsIn(join(this.#lab.layout.agentDir(to), 'data'))
    const equal = disksOf(findGuest(this.#lab.layout, from, guestName)).map((disk) =>
      isIdentical(paths.layer(vmId, disk.diskId, newest), disk.path),
    )
    this.#found.identical.push(...equal)
    if (!equal.every(Boolean)) throw new Error(`point ${newest.name} differs from the disks of the source`)
    this.#screen.seen(
      `point ${newest.name} equals the source, byte for byte (${hasQemuImg() ? 'qemu-img compare' : 'own reader; qemu-img is not installed'})`,
    )
  }

  async #reverse(outcome: string): Promise<void> {
    const job = await this.#job('failover', 'reverse', guestName)
    const vm = await this.#vm()
    this.#screen.seen(
      `replicates back after ${durationOf(job)}, ${mib(vm.totals?.sentBytes ?? 0)} sent: ${outcome}`,
    )
  }

  async #disaster(): Promise<{ dataAgeMs: number; failoverMs: number }> {
    this.#screen.chapter('Disaster: site A loses power')
    await this.#newPoint()
    await this.#checkPoints()
    this.#add(await this.#totals())
    const source = findGuest(this.#lab.layout, 'host-a1', guestName)
    await Promise.all([this.#lab.kill('agent-host-a1'), this.#lab.kill('provider-site-a'), killGuest(source)])
    const vm = await this.#vm()
    this.#screen.seen(
      `VM, host agent and provider of site A are dead; the newest data at site B is ${seconds(vm.dataAgeMs ?? 0)} old`,
    )
    const job = await this.#job('failover', 'unplanned', guestName, '--yes')
    const target = findGuest(this.#lab.layout, 'host-b1', guestName)
    if (!isGuestRunning(target)) throw new Error('the VM does not run on host-b1')
    const found = recoveredCounters(target.dir)
    expectOrder(found)
    this.#screen.seen(`runs on host-b1 after ${durationOf(job)} with orders up to ${found.n1}`)
    await this.#changePoint()
    await this.#job('failover', 'commit', guestName)
    return { dataAgeMs: vm.dataAgeMs ?? 0, failoverMs: durationMs(job) }
  }

  /** Not that one? Until the commit any other point can be chosen. */
  async #changePoint(): Promise<void> {
    const points = [...(await this.#points())].sort((a, b) => b.seq - a.seq)
    const other = points[1]
    if (!other) throw new Error('there is only one recovery point to choose from')
    await this.#job('failover', 'change-point', guestName, '--point', other.name)
    const found = recoveredCounters(findGuest(this.#lab.layout, 'host-b1', guestName).dir)
    expectOrder(found)
    this.#screen.seen(`started from point ${other.name} instead: orders up to ${found.n1}`)
    await this.#job('failover', 'change-point', guestName, '--point', points[0]?.name ?? 'latest')
    this.#screen.seen('and from the newest again')
  }

  async #siteReturns(): Promise<void> {
    this.#screen.chapter('Site A returns: fenced, then the new target')
    this.#lab.restart('agent-host-a1')
    this.#lab.restart('provider-site-a')
    const old = () => findGuest(this.#lab.layout, 'host-a1', guestName)
    const { refuseFenced } = await import('#shared/folder/process.ts')
    const fenced = await waitUntil(() => {
      try {
        refuseFenced(old())
        return false
      } catch {
        return true
      }
    }, cycleTimeoutMs)
    if (!fenced || isGuestRunning(old())) throw new Error('the old VM of site A was not fenced')
    this.#screen.seen('its VM stays off: a higher epoch runs elsewhere')
    await this.#reverse('protected again, from B to A')
    this.#add(await this.#totals())
  }

  async #checkPoints(): Promise<void> {
    const points = await this.#points()
    this.#found.attested.push(...points.map((point) => point.attested))
    this.#screen.seen(
      `${points.length} recovery point${points.length === 1 ? '' : 's'}, each attested: the target derived the roots the source signed`,
    )
  }

  /** Of the present direction: they start anew with the next. */
  async #totals(): Promise<Totals> {
    const { totals } = await this.#vm()
    return totals ?? { changedBytes: 0, sentBytes: 0 }
  }

  #add({ changedBytes, sentBytes }: Totals): void {
    this.#found.changedBytes += changedBytes
    this.#found.sentBytes += sentBytes
  }

  async #newPoint(): Promise<void> {
    const newestSeq = async () => Math.max(0, ...(await this.#points()).map((point) => point.seq))
    const before = await newestSeq()
    if (!(await waitUntil(async () => (await newestSeq()) > before, cycleTimeoutMs, 500))) {
      throw new Error(`no new recovery point within ${cycleTimeoutMs / 1000} s`)
    }
  }

  async #vm(): Promise<Vm> {
    return vmView.parse(await this.#lab.cli('vm', 'show', guestName))
  }

  async #points(): Promise<readonly Point[]> {
    return pointView.array().parse(await this.#lab.cli('point', 'list', guestName))
  }

  async #hotsite(...args: readonly string[]): Promise<unknown> {
    this.#screen.command(args.map((arg) => (/\s/.test(arg) ? `"${arg}"` : arg)).join(' '))
    return this.#lab.cli(...args)
  }

  async #job(...args: readonly string[]): Promise<Job> {
    return jobView.parse(await this.#hotsite(...args))
  }
}

function expectOrder(counters: { n0: number; n1: number; torn: boolean }): void {
  const { n0, n1, torn } = counters
  if (torn || n1 > n0 || n0 > n1 + 1)
    throw new Error(`the guest found a state it never was in: n0=${n0}, n1=${n1}, torn=${torn}`)
}

interface Totals {
  readonly changedBytes: number
  readonly sentBytes: number
}

const largerOf = (a: Totals, b: Totals): Totals => (a.changedBytes > b.changedBytes ? a : b)
const durationMs = (job: Job): number => (job.endedAtMs ?? job.createdAtMs) - job.createdAtMs
const durationOf = (job: Job): string => seconds(durationMs(job))
const round = (value: number): number => Math.round(value * 10) / 10
