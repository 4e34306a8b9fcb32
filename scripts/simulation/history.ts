/** One history: everything a seed plans, then peace, then the judgement of what is left. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { PointReport } from '#shared/messages/reports.ts'
import { background } from './background.ts'
import { followDatabases, makeRoom } from './databases.ts'
import { inject } from './faults.ts'
import { pointsOf } from './listed-points.ts'
import { useNativeSignatures } from './native-signatures.ts'
import { operate, prove } from './operate.ts'
import { judgePoints } from './oracle.ts'
import { faultKinds, type HistoryPlan, operations, outage, type PlannedAction, planHistory } from './plan.ts'
import { defineVm, protectVm } from './protect.ts'
import type { ProtectedVm } from './protected-vm.ts'
import type { Violation } from './truth.ts'
import { decisionsNow } from './watch.ts'
import { crashNames, World } from './world.ts'

export interface HistoryReport {
  readonly seed: number
  readonly simulatedHours: number
  readonly pointsVerified: number
  readonly pointsBackfilled: number
  readonly faults: Readonly<Record<string, number>>
  readonly crashPoints: Readonly<Record<string, number>>
  readonly violations: readonly Violation[]
  readonly digest: string
  readonly seconds: number
}

export interface HistoryOptions {
  readonly seed: number
  readonly trace?: (line: string) => void
}

/** In memory where the platform has that: databases are synced thousands of times. */
export function simulationFolder(): string {
  mkdirSync('/dev/shm', { recursive: true })
  try {
    return mkdtempSync('/dev/shm/hotsite-simulation-')
  } catch {
    return mkdtempSync(join(tmpdir(), 'hotsite-simulation-'))
  }
}

export async function runHistory({ seed, trace }: HistoryOptions): Promise<HistoryReport> {
  useNativeSignatures()
  followDatabases()
  const started = process.cpuUsage()
  const plan = planHistory(seed, crashNames)
  const dir = simulationFolder()
  const world = new World({
    ...plan,
    isProving: plan.vms.some(({ policy }) => policy.proofHours > 0),
    dir,
    trace,
  })
  const onRejection = (error: unknown) =>
    world.truth.violate('engine', `nobody heard: ${error instanceof Error ? error.stack : error}`)
  process.on('unhandledRejection', onRejection)
  try {
    await live(world, plan)
    await convergeInPeace(world)
    judgeRest(world)
    for (const host of world.hosts)
      await Promise.race([host.stop(), world.scheduler.runUntil(world.scheduler.nowMs + 60_000)])
  } finally {
    process.off('unhandledRejection', onRejection)
    rmSync(dir, { recursive: true, force: true })
  }
  const { user, system } = process.cpuUsage(started)
  return {
    seed,
    simulatedHours: world.scheduler.nowMs / 3_600_000,
    pointsVerified: world.truth.pointsVerified,
    pointsBackfilled: world.truth.pointsBackfilled,
    faults: Object.fromEntries(world.faults),
    crashPoints: Object.fromEntries(world.crashes),
    violations: world.truth.violations,
    digest: world.digest(),
    seconds: (user + system) / 1e6,
  }
}

export async function live(world: World, plan: HistoryPlan): Promise<void> {
  const { scheduler } = world
  for (const host of world.hosts) void world.switchOn(host)
  for (const [i, vmPlan] of plan.vms.entries()) {
    const vm = defineVm(world, vmPlan, plan.seed * 101 + i)
    for (let n = 0; n < 12; n++) vm.guest.write()
    keepWriting(world, vm)
    background(world, protectVm(world, vm, 'initial'))
    keepJudging(world, vm)
  }
  for (const { name, nth, power, downMs } of plan.crashes)
    scheduler.after(world.below(plan.durationMs / 2), () => {
      world.armed.push({ name, left: nth, power, downMs })
    })
  for (const action of plan.actions) scheduler.at(action.atMs, () => act(world, action))
  await scheduler.runUntil(plan.durationMs)
}

function act(world: World, { kind }: PlannedAction): void {
  const fault = [...faultKinds, outage].find((known) => known === kind)
  if (fault) inject(world, fault)
  const operation = operations.find((known) => known === kind)
  if (operation) background(world, operate(world, operation))
}

function keepWriting(world: World, vm: ProtectedVm): void {
  const { scheduler } = world
  const again = () => {
    if (world.isPeaceful) return
    for (let n = world.below(7); n > 0; n--) vm.guest.write()
    if (world.chance(0.2)) vm.guest.writeHalf()
    scheduler.after(1 + world.below(vm.policy.copyFrequencySeconds * 700), again)
  }
  scheduler.after(world.below(30_000), again)
}

/** The newest point soon after it came, all of them now and then. */
function keepJudging(world: World, vm: ProtectedVm): void {
  const { scheduler, truth } = world
  const frequencyMs = vm.policy.copyFrequencySeconds * 1000
  let rounds = 0
  const again = () => {
    judgePoints(truth, vm, ++rounds % 12 === 0 ? 'all' : 'newest')
    judgeBuffer(world, vm)
    if (!world.isPeaceful) scheduler.after(frequencyMs, again)
  }
  scheduler.after(frequencyMs * 1.3, again)
}

function judgeBuffer(world: World, vm: ProtectedVm): void {
  void vm.source.parts?.engine.usage().then(({ bufferedBytes, maxBytes }) => {
    if (bufferedBytes > maxBytes)
      world.truth.violate('I13', `the buffer holds ${bufferedBytes} of ${maxBytes} bytes`)
  })
}

const PEACE_STEP_MS = 10_000
/** From the end of the last fault until every VM's newest point is its guest's present. */
const PEACE_LIMIT_MS = 45 * 60_000

export async function convergeInPeace(world: World): Promise<void> {
  const { scheduler, link } = world
  world.note('peace')
  world.isPeaceful = true
  world.armed = []
  link.bytesPerMs = 100_000
  link.latencyMs = 2
  link.setSilent(false)
  for (const { disk } of world.hosts) disk.roomBytes = undefined
  for (const { life } of world.hosts) if (life) makeRoom(life.dir)
  for (const host of world.hosts) if (!host.life) void world.switchOn(host)
  for (const vm of world.vms) if (vm.rot !== 'none') background(world, prove(world, vm))
  const deadlineMs = scheduler.nowMs + PEACE_LIMIT_MS
  while (scheduler.nowMs < deadlineMs) {
    await scheduler.runUntil(scheduler.nowMs + PEACE_STEP_MS)
    if (
      world.pending === 0 &&
      world.vms.every((vm) => isCurrent(world, vm) && vm.owed.length === 0 && (isPruned(vm) || isDamaged(vm)))
    )
      return await stayCurrent(world)
  }
  if (world.pending > 0) world.truth.violate('I4', `${world.pending} orders were never carried out`)
  for (const vm of world.vms) {
    if (!isCurrent(world, vm))
      world.truth.violate(
        'convergence',
        `${vm.vmId}: the newest point is not the guest's present after ${PEACE_LIMIT_MS / 60_000} minutes of peace`,
      )
    if (vm.owed.length > 0)
      world.truth.violate('backfill', `${vm.vmId}: older points of an outage are still owed`)
    if (!isPruned(vm) && !isDamaged(vm))
      world.truth.violate('I10', `${vm.vmId}: retention has not done what it decided`)
  }
}

/** From then on data age stays below twice the copy frequency. */
async function stayCurrent(world: World): Promise<void> {
  const { scheduler, truth } = world
  const frequencyMs = Math.max(...world.vms.map(({ policy }) => policy.copyFrequencySeconds)) * 1000
  await scheduler.runUntil(scheduler.nowMs + 2.2 * frequencyMs)
  for (const vm of world.vms) {
    const newest = newestOf(vm)
    const captured = newest ? truth.signed(vm.vmId, newest) : []
    const ageMs = scheduler.nowMs - Math.max(...captured.map(({ instant }) => instant.atMs))
    const limitMs = 2 * vm.policy.copyFrequencySeconds * 1000
    if (ageMs >= limitMs)
      truth.violate(
        'convergence',
        `${vm.vmId}: data age is ${ageMs / 1000} s in peace, at a copy every ${limitMs / 2000} s`,
      )
  }
}

function newestOf(vm: ProtectedVm): PointReport | undefined {
  return pointsOf(vm)
    .toSorted((a, b) => a.seq - b.seq)
    .at(-1)
}

/** The newest point holds the last change of the guest. */
function isCurrent(world: World, vm: ProtectedVm): boolean {
  const newest = newestOf(vm)
  if (!newest || newest.damaged) return false
  return world.truth.signed(vm.vmId, newest).some(({ instant }) => instant.change === vm.guest.change)
}

function isPruned(vm: ProtectedVm): boolean {
  const store = vm.target.parts?.store
  return store !== undefined && decisionsNow(vm, store).every(({ keep }) => keep)
}

/** Merging waits for what may still be healed. */
function isDamaged(vm: ProtectedVm): boolean {
  return pointsOf(vm).some(({ damaged }) => damaged)
}

export function judgeRest(world: World): void {
  for (const vm of world.vms) judgePoints(world.truth, vm, 'all')
  for (const host of world.hosts) {
    const { openSnapshots } = host.hypervisor
    if (openSnapshots > 0)
      world.truth.violate('I11', `${openSnapshots} snapshots of ${host.name} were never closed`)
  }
}
