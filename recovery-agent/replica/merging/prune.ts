/** Retention at work: decide (shared/policy/retention.ts), then merge, a slice at a time (merging.ts). */
import type { VmId } from '#shared/ids.ts'
import { MergeSpeed, slowDownFor } from '#shared/policy/merge-pace.ts'
import { decideRetention, type RetentionDecision, retentionOf } from '#shared/policy/retention.ts'
import { heldByBackfills } from '../catalog/backfills.ts'
import type { ReplicaRow } from '../catalog/catalog.ts'
import type { Chain } from '../catalog/chain.ts'
import { type PointMarks, pointMarks } from '../catalog/point-marks.ts'
import { type ReplicaContext, replicaOrThrow } from '../context.ts'
import { overlaysOn } from '../overlays.ts'
import { mayMerge } from './merge-leaves.ts'
import { isSameRun, type MergeRun, mergeRuns, uppersOf } from './merge-run.ts'
import { Merging } from './merging.ts'

/** Nothing is promised of a replica whose failover is final, but what its overlay stands on. */
const LATEST_ONLY = { retentionPoints: 0, retentionIntervalSeconds: 0, appConsistentHours: 0 }

/** One for every point, oldest first. `marks`: as the rows say now. */
export function retentionDecisions(
  context: ReplicaContext,
  replica: ReplicaRow,
  chain: Chain,
  { overlays, suspicions, damaged }: PointMarks = pointMarks(context, replica.vmId, chain),
): RetentionDecision[] {
  const isOver = replica.state === 'committed'
  const points = chain
    .filter(({ state }) => state === 'point')
    .map((point) => ({
      ...point,
      inUse: overlaysOn(overlays, point).length > 0,
      pinned: point.pinned && !isOver,
      suspect: suspicions.has(point.seq) && !isOver,
      damaged: damaged.has(point.seq),
    }))
  return decideRetention({
    points,
    policy: retentionOf(isOver ? LATEST_ONLY : replica.policy),
  })
}

/**
 * A person unpinned this point: if it is suspect, or held because of one, the hint is taken back. Inside the caller's
 * transaction, after the pin is gone.
 */
export function takeBackSuspicion(
  context: ReplicaContext,
  replica: ReplicaRow,
  { seq }: { readonly seq: number },
): void {
  const { catalog } = context
  const { vmId } = replica
  const decisions = retentionDecisions(context, replica, catalog.chain(vmId))
  const isHeld = decisions.find((one) => one.seq === seq)?.reason === 'before-suspect'
  const first = decisions.find((one) => one.seq > seq && one.reason === 'suspect')
  catalog.suspicions.clear(vmId, seq)
  if (isHeld && first) catalog.suspicions.clear(vmId, first.seq)
}

export class Pruning {
  readonly #context: ReplicaContext
  /** By VM. What is on its way lives here only, and is planned again by the next life. */
  readonly #merging = new Map<VmId, Merging>()
  readonly #speed = new MergeSpeed()
  readonly #slowedByMs = new Map<VmId, number>()

  constructor(context: ReplicaContext) {
    this.#context = context
  }

  /** One slice of one merge. True: there is more to do. */
  prune(replica: ReplicaRow): boolean {
    const { vmId } = replica
    const merging = this.#merging.get(vmId) ?? this.#begin(replica)
    if (!merging) return false
    let isDone = true
    try {
      const slice = merging.slice()
      ;({ isDone } = slice)
      this.#speed.add(slice)
    } finally {
      if (isDone) this.abandon(vmId)
    }
    return !isDone || this.#mergeable(replica) !== undefined
  }

  #begin(replica: ReplicaRow): Merging | undefined {
    const run = this.#mergeable(replica)
    if (!run) return undefined
    const { vmId } = replica
    const isStillDue = () =>
      this.#runs(replicaOrThrow(this.#context, vmId)).some((now) => isSameRun(now, run))
    const merging = new Merging(this.#context, vmId, { run, isStillDue })
    this.#merging.set(vmId, merging)
    return merging
  }

  /** A layer whose tables are damaged waits until it is healed: merging would make the damage final. */
  #mergeable(replica: ReplicaRow): MergeRun | undefined {
    const { catalog } = this.#context
    return this.#runs(replica).find((run) => mayMerge(catalog, replica.vmId, [...run.members, run.target]))
  }

  #runs(replica: ReplicaRow, chain = this.#context.catalog.chain(replica.vmId)): MergeRun[] {
    const { catalog } = this.#context
    const decisions = retentionDecisions(this.#context, replica, chain)
    const held = heldByBackfills(chain, catalog.backfills.list(replica.vmId))
    const dropped = decisions.filter(({ keep, seq }) => !keep && !held.has(seq))
    return mergeRuns(chain, new Set(dropped.map(({ seq }) => seq)))
  }

  /** Before the chain or its files change in another way than by growing. */
  abandon(vmId: VmId): void {
    const merging = this.#merging.get(vmId)
    this.#merging.delete(vmId)
    merging?.[Symbol.dispose]()
  }

  /** Bytes that merges due now still have to copy, at most. */
  debtBytes(replica: ReplicaRow): number {
    return this.#debtOf(replica.vmId, this.#runs(replica))
  }

  #debtOf(vmId: VmId, runs: readonly MergeRun[]): number {
    const stored = runs
      .flatMap((run) => uppersOf(run))
      .flatMap(({ disks }) => disks)
      .reduce((sum, disk) => sum + disk.storedBytes, 0)
    return Math.max(0, stored - (this.#merging.get(vmId)?.copiedBytes ?? 0))
  }

  /** What the source of this VM is asked to add to each of its cycles. */
  slowDownMs(replica: ReplicaRow): number {
    const { vmId, policy } = replica
    const chain = this.#context.catalog.chain(vmId)
    const runs = this.#runs(replica, chain)
    const slowMs = slowDownFor({
      debtBytes: this.#debtOf(vmId, runs),
      mergeBytesPerSecond: this.#speed.bytesPerSecond,
      frequencyMs: policy.copyFrequencySeconds * 1000,
      chainLength: chain.length,
      dueLayers: runs.reduce((sum, { members }) => sum + members.length, 0),
      slowedByMs: this.#slowedByMs.get(vmId) ?? 0,
    })
    this.#slowedByMs.set(vmId, slowMs)
    return slowMs
  }

  forget(vmId: VmId): void {
    this.abandon(vmId)
    this.#slowedByMs.delete(vmId)
  }

  close(): void {
    for (const vmId of [...this.#merging.keys()]) this.abandon(vmId)
  }
}
