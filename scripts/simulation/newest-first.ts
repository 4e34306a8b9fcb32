/** What must hold of a backlog: the newest point is sent first, and every older one that stays is brought below it. */
import type { OwedRange } from '#recovery-agent/buffer/owed.ts'
import { layoutOf } from '#recovery-agent/buffer/owed.ts'
import type { CaptureEngine, SealedDelta, SourceVmState } from '#recovery-agent/capture/port.ts'
import { type KnownPoint, keptPoints } from '#shared/policy/catch-up.ts'
import { pointsIn } from './listed-points.ts'
import { type ProtectedVm, pointName } from './protected-vm.ts'
import { START_MS } from './scheduler.ts'
import type { WatchedWorld } from './watch.ts'

/** What a source was seen to begin: it is ended before anything newer is. */
const begun = new WeakMap<ProtectedVm, string>()

/** A delta that was sealed less than so long ago may be too new to be known to whoever sends. */
const JUST_SEALED_MS = 2_000

/**
 * At the moment something is chosen to be sent: it is the newest, unless the disks changed their layout in between, or the
 * target cannot take older points now because it does not know what its layers hold.
 */
export async function judgedOrder(
  world: WatchedWorld,
  vm: ProtectedVm,
  { engine, delta }: { readonly engine: CaptureEngine; readonly delta: SealedDelta | undefined },
): Promise<SealedDelta | undefined> {
  if (!delta) return delta
  const name = `${delta.epoch}/${delta.firstSeq}-${delta.seq}`
  const isGoingOn = begun.get(vm) === name || vm.owed.some(({ topSeq }) => topSeq === delta.seq)
  begun.set(vm, name)
  if (!isGoingOn) await judgeChoice(world, vm, { engine, lastSeq: delta.seq })
  return delta
}

/** A union is chosen when what is owed below it is recorded. */
export async function judgePromise(
  world: WatchedWorld,
  vm: ProtectedVm,
  { engine, range }: { readonly engine: CaptureEngine; readonly range: OwedRange },
): Promise<void> {
  const isNew = vm.owed.every(({ topSeq }) => topSeq !== range.topSeq)
  if (isNew && range.points.length > 0) await judgeChoice(world, vm, { engine, lastSeq: range.topSeq })
}

async function judgeChoice(
  { truth, scheduler }: WatchedWorld,
  vm: ProtectedVm,
  { engine, lastSeq }: { readonly engine: CaptureEngine; readonly lastSeq: number },
): Promise<void> {
  const state = await engine.state(vm.vmId)
  if (!state || state.needsSync !== null || vm.source.skewMs !== 0 || !vm.takesBackfills) return
  const waiting = (await engine.pendingDeltas(vm.vmId)).filter(
    ({ seq, capturedAtMs }) => seq <= lastSeq || capturedAtMs - START_MS < scheduler.nowMs - JUST_SEALED_MS,
  )
  const newer = waiting.filter(({ seq }) => seq > lastSeq).map(({ seq }) => seq)
  const isSteady = waiting.every(
    ({ disks, epoch }) => layoutOf(disks) === state.ackedLayout && epoch === state.epoch,
  )
  if (isSteady && newer.length > 0)
    truth.violate('newest-first', `${vm.vmId}: point ${lastSeq} is sent while ${newer} wait`)
}

/** Points that the source no longer owes are at the target, or retention would not keep them. */
export function judgeOwed(world: WatchedWorld, vm: ProtectedVm, now: SourceVmState | undefined): void {
  const before = vm.owed
  if (!now || now.epoch !== vm.epoch) return
  vm.owed = now.owed
  const arrived = before.filter(({ topSeq }) => topSeq <= now.ackedSeq)
  const gone = arrived.flatMap((range) => range.points.filter((point) => !isOwed(now.owed, range, point)))
  // A synchronization has a cause of its own, and a target that was damaged may have lost its place for them.
  if (gone.length === 0 || now.needsSync !== null || world.isTroubled || vm.rot !== 'none') return
  const store = vm.target.parts?.store
  if (!store || store.get(vm.vmId)?.epoch !== vm.epoch) return
  const listed = pointsIn(store, vm.vmId)
  const known: KnownPoint[] = listed.map((point) => ({ ...point, suspect: point.suspect !== null }))
  const there = new Set(listed.map(pointName))
  const kept = new Set(
    keptPoints(
      [
        ...known.filter((point) => !gone.some((one) => pointName(one) === pointName(point))),
        ...gone,
        ...now.owed.flatMap(({ points }) => points),
      ],
      vm.policy,
    ).map(pointName),
  )
  for (const point of gone) {
    const name = pointName(point)
    if (there.has(name)) world.truth.pointsBackfilled++
    if (!there.has(name) && !vm.dropped.has(name) && kept.has(name))
      world.truth.violate('backfill', `point ${name} of ${vm.vmId} is given up`)
  }
}

function isOwed(owed: readonly OwedRange[], { topSeq }: OwedRange, { seq }: KnownPoint): boolean {
  return owed.some((range) => range.topSeq === topSeq && range.points.some((point) => point.seq === seq))
}
