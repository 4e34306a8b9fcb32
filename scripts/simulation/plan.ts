/** What a history is, from its seed alone: pure, printed with --plan. */
import { BLOCK_BYTES } from '#shared/blocks/block.ts'
import { type ReplicationPolicy, replicationPolicy } from '#shared/messages/policy.ts'
import { intBelow, type Rng, seededRng } from '#shared/rng.ts'
import type { Load } from './guest.ts'
import type { VmPlan } from './protect.ts'

export const faultKinds = [
  'link-cut',
  'link-cut-unnoticed',
  'link-cut-at-frame',
  'link-silent',
  'link-slow',
  'link-altered',
  'kill',
  'power-loss',
  'disk-full',
  'clock-jump',
  'snapshot-torn',
  'tracker-lost',
  'memory-spoils',
  'rot',
  'database-full',
  'rows-rot',
  'buffer-lost',
] as const
/** Planned for itself: copies go on while the line is silent, and older points are brought afterwards. */
export const outage = 'outage' as const
export type FaultKind = (typeof faultKinds)[number] | typeof outage

export const operations = [
  'load',
  'grow',
  'shrink',
  'add-disk',
  'remove-disk',
  'pause',
  'policy',
  'pin',
  'unpin',
  'overlay',
  'overlay-remove',
  'resync',
  'repeat-start',
  'copy-now',
  'failover',
] as const
export type Operation = (typeof operations)[number]

export interface PlannedAction {
  readonly atMs: number
  readonly kind: FaultKind | Operation
}

export interface PlannedCrash {
  readonly name: string
  readonly nth: number
  readonly power: boolean
  readonly downMs: number
}

export interface HistoryPlan {
  readonly seed: number
  readonly vms: readonly VmPlan[]
  readonly durationMs: number
  readonly maxCallMs: number
  readonly bufferMaxBytes: number
  readonly crashes: readonly PlannedCrash[]
  readonly actions: readonly PlannedAction[]
}

const MiB = 2 ** 20
/** Copy cycles of a history, roughly: what a seed costs. */
const CYCLES = 12

/** Consecutive seeds walk through the crash points, so that every few dozen seeds pass each of them. */
export function planHistory(seed: number, crashNames: readonly string[]): HistoryPlan {
  const rng = seededRng(seed)
  const vmCount = pick(rng, [1, 1, 1, 2, 2, 3])
  const vms = Array.from({ length: vmCount }, (_, i) => planVm(rng, `vm-${i + 1}`))
  const frequencyMs = Math.min(...vms.map(({ policy }) => policy.copyFrequencySeconds)) * 1000
  const durationMs = Math.round((CYCLES / vmCount) * frequencyMs)
  const crashes = [0, 1].map((i) => planCrash(rng, crashNames[(seed * 2 + i) % crashNames.length] ?? ''))
  const actions = [
    ...Array.from({ length: 3 + intBelow(rng, 4) }, () => action(rng, durationMs, faultKinds)),
    ...Array.from({ length: 3 + intBelow(rng, 5) }, () => action(rng, durationMs, operations)),
  ].sort((a, b) => a.atMs - b.atMs)
  const plan = {
    seed,
    vms,
    durationMs,
    maxCallMs: pick(rng, [0, 0, 2, 40]),
    bufferMaxBytes: pick(rng, [64 * MiB, 64 * MiB, 2 * MiB]),
    crashes,
    actions,
  }
  const isAboutBacklogs = crashes.some(({ name }) => backlogCrash.test(name))
  return isAboutBacklogs || rng.next() < 0.2 ? withOutage(rng, plan) : plan
}

/** Instants that are only passed when older points are brought below newer ones. */
const backlogCrash = /^owe\.|backfill|repoint/

/** Many points stay, so that there is something to bring; and they are brought before the end. */
function withOutage(rng: Rng, plan: HistoryPlan): HistoryPlan {
  const kept = { retentionPoints: pick(rng, [6, 15]), retentionIntervalSeconds: pick(rng, [0, 0, 60]) }
  return {
    ...plan,
    vms: plan.vms.map((vm) => ({ ...vm, policy: { ...vm.policy, ...kept } })),
    crashes: plan.crashes.map((crash) =>
      backlogCrash.test(crash.name) ? { ...crash, nth: 1 + intBelow(rng, 3) } : crash,
    ),
    actions: [...plan.actions, { atMs: Math.round(plan.durationMs * 0.2), kind: outage }].sort(
      (a, b) => a.atMs - b.atMs,
    ),
  }
}

function planVm(rng: Rng, name: string): VmPlan {
  const disks = pick(rng, [2, 2, 2, 3])
  return {
    name,
    diskBytes: Array.from({ length: disks }, () => diskBytes(rng)),
    load: pick<Load>(rng, ['cold', 'cold', 'hot', 'zeroing', 'none']),
    isTracked: rng.next() < 0.5,
    policy: randomPolicy(rng),
  }
}

/** Mostly a few dozen blocks, now and then more than a group of 256; odd sizes on purpose. */
export function diskBytes(rng: Rng): number {
  const blocks = rng.next() < 0.1 ? 250 + intBelow(rng, 60) : 6 + intBelow(rng, 40)
  return blocks * BLOCK_BYTES + pick(rng, [0, 0, 512, 40_000])
}

export function randomPolicy(rng: Rng): ReplicationPolicy {
  return replicationPolicy.parse({
    copyFrequencySeconds: pick(rng, [30, 30, 30, 300]),
    retentionPoints: pick(rng, [0, 1, 2, 3, 4, 6, 15]),
    retentionIntervalSeconds: pick(rng, [0, 0, 60, 600]),
    compression: rng.next() < 0.5,
    throttleBytesPerSecond: pick(rng, [0, 0, 0, 500_000]),
    // On disks this small a rolling proof is most of the work of a history.
    proofHours: pick(rng, [0, 0, 0, 0, 24]),
  })
}

function planCrash(rng: Rng, name: string): PlannedCrash {
  return { name, nth: 1 + intBelow(rng, 6), power: rng.next() < 0.5, downMs: downMs(rng) }
}

export function downMs(rng: Rng): number {
  return pick(rng, [500, 20_000, 200_000, 1_200_000]) * (0.5 + rng.next())
}

function action<Kind extends FaultKind | Operation>(
  rng: Rng,
  durationMs: number,
  kinds: readonly Kind[],
): PlannedAction {
  return { atMs: Math.round(rng.next() * durationMs), kind: pick(rng, kinds) }
}

export function pick<T>(rng: Rng, from: readonly T[]): T {
  const found = from[intBelow(rng, from.length)]
  if (found === undefined) throw new RangeError('nothing to pick from')
  return found
}
