/** The line between the sites is silent for an hour, with a copy every thirty seconds; then it is back, and slow. */
import { rmSync } from 'node:fs'
import { BLOCK_BYTES } from '#shared/blocks/block.ts'
import { replicationPolicy } from '#shared/messages/policy.ts'
import { decideRetention, retentionOf } from '#shared/policy/retention.ts'
import { convergeInPeace, judgeRest, live, simulationFolder } from './history.ts'
import { useNativeSignatures } from './native-signatures.ts'
import { judgePoints } from './oracle.ts'
import type { HistoryPlan } from './plan.ts'
import { type ProtectedVm, pointName } from './protected-vm.ts'
import { START_MS } from './scheduler.ts'
import type { Violation } from './truth.ts'
import { World } from './world.ts'

const FREQUENCY_SECONDS = 30
const MINUTE_MS = 60_000
const HOUR_MS = 60 * MINUTE_MS
const BEGINS_MS = 10 * MINUTE_MS
/** 1 Mbit/s: the whole backlog would take a quarter of an hour. */
const SLOW_BYTES_PER_MS = 125

export interface OutageReport {
  /** Copies the source made while the line was silent. */
  readonly copiesMeanwhile: number
  /** From the return of the line until the target's data age is below twice the copy frequency; null: not within half an hour. */
  readonly secondsUntilCurrent: number | null
  /** Points retention would keep of all that were captured, and that are not there in the end. */
  readonly missing: readonly string[]
  readonly violations: readonly Violation[]
}

function planOf(seed: number): HistoryPlan {
  const policy = replicationPolicy.parse({
    copyFrequencySeconds: FREQUENCY_SECONDS,
    retentionPoints: 6,
    retentionIntervalSeconds: 600,
  })
  const diskBytes = [24 * BLOCK_BYTES, 30 * BLOCK_BYTES + 512]
  return {
    seed,
    vms: [{ name: 'vm-1', diskBytes, load: 'hot', isTracked: true, policy }],
    durationMs: BEGINS_MS + HOUR_MS,
    maxCallMs: 2,
    bufferMaxBytes: 256 * 2 ** 20,
    crashes: [],
    actions: [],
  }
}

export async function runOutage(seed: number): Promise<OutageReport> {
  useNativeSignatures()
  const plan = planOf(seed)
  const dir = simulationFolder()
  const world = new World({ ...plan, isProving: true, dir, trace: undefined })
  const { scheduler, link } = world
  try {
    scheduler.at(BEGINS_MS, () => link.setSilent(true))
    await live(world, plan)
    const [vm] = world.vms
    if (!vm) throw new Error('nothing is protected')
    const sealed = (await vm.source.parts?.engine.state(vm.vmId))?.sealedSeq ?? 0
    const before = vm.ackedSeq
    link.bytesPerMs = SLOW_BYTES_PER_MS
    link.setSilent(false)
    const secondsUntilCurrent = await untilCurrent(world, vm)
    judgePoints(world.truth, vm, 'all')
    await convergeInPeace(world)
    judgeRest(world)
    return {
      copiesMeanwhile: sealed - before,
      secondsUntilCurrent,
      missing: missingPoints(world, vm),
      violations: world.truth.violations,
    }
  } finally {
    for (const host of world.hosts) host.kill({ power: false, losesBuffer: false, rng: world.rng })
    await scheduler.runUntil(scheduler.nowMs + 1)
    rmSync(dir, { recursive: true, force: true })
  }
}

async function untilCurrent({ scheduler }: World, vm: ProtectedVm): Promise<number | null> {
  const returnedMs = scheduler.nowMs
  while (scheduler.nowMs < returnedMs + HOUR_MS / 2) {
    await scheduler.runUntil(scheduler.nowMs + 1_000)
    const points = vm.target.parts?.store.points(vm.vmId) ?? []
    const newestMs = Math.max(...points.map(({ capturedAtMs }) => capturedAtMs - START_MS))
    if (scheduler.nowMs - newestMs < 2 * FREQUENCY_SECONDS * 1000)
      return (scheduler.nowMs - returnedMs) / 1000
  }
  return null
}

/** Applied after every copy, as if there had been no outage. */
function missingPoints(world: World, vm: ProtectedVm): string[] {
  const policy = retentionOf(vm.policy)
  let kept: { epoch: number; seq: number; capturedAtMs: number }[] = []
  for (let seq = 1; ; seq++) {
    const captured = world.truth.signed(vm.vmId, { epoch: 1, seq }).at(-1)
    if (!captured) break
    const points = [...kept, captured].map(({ epoch, seq: number, capturedAtMs }) => ({
      epoch,
      seq: number,
      capturedAtMs,
      consistency: 'crash' as const,
      pinned: false,
      inUse: false,
      suspect: false,
      damaged: false,
    }))
    const stay = new Set(decideRetention({ points, policy }).flatMap(({ keep, seq: s }) => (keep ? [s] : [])))
    kept = points.filter((point) => stay.has(point.seq))
  }
  return kept.map(pointName).filter((name) => !vm.listed.has(name))
}
