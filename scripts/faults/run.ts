/** One chaos run: the plan of a seed, executed on the world, and everything that must hold afterwards. */
import { closeSync, openSync, readSync } from 'node:fs'
import type { PointView as Point } from '#coordinator/admin/views.ts'
import { systemClock } from '#shared/clock.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { startProgram } from '#shared/folder/process.ts'
import { openProcessTable } from '#shared/folder/process-table.ts'
import { findGuest, killGuest } from '../lab-kit/guest.ts'
import { daemonNames, labDown } from '../lab-kit/lab.ts'
import { waitUntil } from '../lab-kit/processes.ts'
import { type FaultyLink, openFaultyLink } from './faulty-link.ts'
import { decodeCounter } from './model.ts'
import { type Action, planRun } from './plan.ts'
import { pointViolations } from './verify.ts'
import { guestName, restoreTemplate, startWorld, type World } from './world.ts'

export interface RunReport {
  readonly seed: number
  readonly actions: readonly string[]
  /** A crash point may lie off the path of this run; it counts only when the daemon died there. */
  readonly crashed: readonly string[]
  readonly pointsVerified: number
  readonly violations: readonly string[]
  readonly seconds: number
}

const recoveryTimeoutMs = 60_000
const crashTimeoutMs = 12_000
const retentionPoints = 15

export async function runSeed(dir: string, seed: number): Promise<RunReport> {
  const startedMs = performance.now()
  const plan = planRun(seed)
  restoreTemplate(dir, seed)
  const world = await startWorld(dir)
  await using link = await openFaultyLink({ listenPort: world.relayPort, targetPort: world.targetPort })
  const crashed: string[] = []
  const seen = new Map<string, Point>()
  try {
    await protect(world)
    for (const action of plan) {
      await perform(world, link, action, crashed)
      await notePoints(world, seen)
    }
    const outcome = await settleAndVerify(world, seed, seen)
    return {
      seed,
      actions: plan.map(describe),
      crashed,
      ...outcome,
      seconds: Math.round((performance.now() - startedMs) / 100) / 10,
    }
  } finally {
    await killGuest(findGuest(world.lab.layout, 'host-a1', guestName))
    await labDown(dir)
  }
}

async function protect({ lab }: World): Promise<void> {
  const guest = findGuest(lab.layout, 'host-a1', guestName)
  await startProgram(guest, openProcessTable(), systemClock)
  const policy = [
    '--copy-frequency',
    '30s',
    '--retention-points',
    String(retentionPoints),
    '--retention-interval',
    '0s',
  ]
  await lab.cli('cloud', 'pair', 'vmm-a/gold-a', 'vmm-b/gold-b', ...policy)
  await lab.cli('vm', 'protect', guestName)
}

async function perform(world: World, link: FaultyLink, action: Action, crashed: string[]): Promise<void> {
  const { lab } = world
  switch (action.kind) {
    case 'kill':
      await systemClock.sleep(action.afterMs)
      await lab.kill(action.daemon)
      await systemClock.sleep(action.downMs)
      lab.restart(action.daemon)
      return
    case 'crash': {
      const { daemon, name } = action.target
      await lab.kill(daemon)
      lab.restart(daemon, { HOTSITE_CRASH_AT: `${name}:${action.nth}` })
      if (await waitUntil(() => !lab.isAlive(daemon), crashTimeoutMs)) crashed.push(name)
      else await lab.kill(daemon)
      lab.restart(daemon)
      return
    }
    case 'link':
      await systemClock.sleep(action.afterMs)
      link.inject(action.fault, action.stallMs)
  }
}

/** The coordinator may be down just now; then there is nothing to note. */
async function notePoints(world: World, seen: Map<string, Point>): Promise<void> {
  try {
    for (const point of await world.points()) seen.set(point.name, point)
  } catch (error) {
    if (!(error instanceof HotsiteError)) throw error
  }
}

async function settleAndVerify(
  world: World,
  seed: number,
  seen: Map<string, Point>,
): Promise<{ pointsVerified: number; violations: readonly string[] }> {
  for (const daemon of daemonNames) if (!world.lab.isAlive(daemon)) world.lab.restart(daemon)
  const answers = () =>
    world.points().then(
      () => true,
      () => false,
    )
  if (!(await waitUntil(answers, recoveryTimeoutMs)))
    return { pointsVerified: 0, violations: ['the coordinator does not come back'] }
  const wanted = sourceCounter(world)
  const verified = new Map<string, readonly string[]>()
  let reached = 0
  const caughtUp = await waitUntil(
    async () => {
      await notePoints(world, seen)
      const newest = [...seen.values()].reduce<Point | undefined>(
        (best, point) => (best && best.seq > point.seq ? best : point),
        undefined,
      )
      if (!newest || verified.has(newest.name)) return false
      reached = Math.max(reached, await verifyPoint(world, seed, newest, verified))
      return reached >= wanted
    },
    recoveryTimeoutMs,
    300,
  )
  const violations: string[] = []
  if (!caughtUp)
    violations.push(
      `replication did not come back by itself: the guest had reached ${wanted}, the newest point holds ${reached}`,
    )
  // A copy cycle may prune while the points are read, so the guest and its copies are stopped first.
  await world.lab.kill('agent-host-a1')
  const listed = await world.points().catch(() => [] as readonly Point[])
  for (const point of listed) if (!verified.has(point.name)) await verifyPoint(world, seed, point, verified)
  violations.push(...[...verified].flatMap(([name, found]) => found.map((text) => `point ${name}: ${text}`)))
  violations.push(...lostPoints(seen, listed), ...(await needlessResyncs(world)))
  return { pointsVerified: verified.size, violations }
}

/** Answers the counter of disk 1 found in it; a point pruned while it was being read is not judged. */
async function verifyPoint(
  world: World,
  seed: number,
  point: Point,
  verified: Map<string, readonly string[]>,
): Promise<number> {
  const { vmId } = await world.vm()
  const layers = world.layers(point, vmId ?? '')
  if (layers.length < 2) return 0
  const { violations, disks } = pointViolations(seed, layers)
  const stillThere = (await world.points()).some(({ name }) => name === point.name)
  if (stillThere || violations.length === 0) verified.set(point.name, violations)
  return disks[1] ? (decodeCounter(disks[1].subarray(0, 512)) ?? 0) : 0
}

function sourceCounter(world: World): number {
  const fd = openSync(world.sourceDisks()[1] ?? '', 'r')
  try {
    const record = Buffer.alloc(512)
    readSync(fd, record, 0, 512, 0)
    return decodeCounter(record) ?? 0
  } finally {
    closeSync(fd)
  }
}

/** A point that was listed may go only when retention has enough newer ones. */
function lostPoints(seen: ReadonlyMap<string, Point>, listed: readonly Point[]): readonly string[] {
  const names = new Set(listed.map(({ name }) => name))
  const newer = (point: Point) => listed.filter(({ seq }) => seq > point.seq).length
  return [...seen.values()]
    .filter((point) => !names.has(point.name) && newer(point) <= retentionPoints)
    .map(({ name }) => `point ${name} was listed once and is gone`)
}

/** Deltas must survive every one of these faults: nothing here is a reason to compare the disks anew (I2, I7). */
async function needlessResyncs(world: World): Promise<readonly string[]> {
  const events = await world.lab.admin.call('listEvents', { query: { limit: 500 } })
  return events
    .filter(({ code }) => /resync|synchroniz/.test(code))
    .map(({ code, message }) => `${code}: ${message}`)
}

export function describe(action: Action): string {
  switch (action.kind) {
    case 'kill':
      return `kill ${action.daemon} after ${action.afterMs} ms, down ${action.downMs} ms`
    case 'crash':
      return `crash ${action.target.daemon} at ${action.target.name}, passage ${action.nth}`
    case 'link':
      return `link: ${action.fault} after ${action.afterMs} ms`
  }
}
