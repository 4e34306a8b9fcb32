/**
 * Looks on while the engine works, at the ports, and judges what can only be judged at that moment: whether a
 * resynchronization has a cause (I7), whether more travels than changed (I6, I7), whether a base is let go too early
 * (I2), what retention was allowed to drop (I10).
 */

import type { OwedRange } from '#recovery-agent/buffer/owed.ts'
import type { CaptureEngine, SealedDelta, SourceVmState, SyncSession } from '#recovery-agent/capture/port.ts'
import type { ReplicaStore } from '#recovery-agent/replica/port.ts'
import { BLOCK_BYTES, blockCountOf } from '#shared/blocks/block.ts'
import type { VmId } from '#shared/ids.ts'
import type { ResyncCause } from '#shared/messages/commands.ts'
import { decideRetention, type RetentionDecision, retentionOf } from '#shared/policy/retention.ts'
import { pointsIn } from './listed-points.ts'
import { judgedOrder, judgeOwed, judgePromise } from './newest-first.ts'
import { type ProtectedVm, pointName } from './protected-vm.ts'
import type { Truth } from './truth.ts'

export interface WatchedWorld {
  readonly truth: Truth
  /** Disks may refuse, rows may be damaged. */
  readonly isTroubled: boolean
  readonly scheduler: { readonly nowMs: number }
  vm(vmId: VmId): ProtectedVm | undefined
  note(text: string): void
}

/** The same object with some methods looked at. */
function looked<Target extends object>(
  target: Target,
  around: (name: string, args: readonly unknown[], run: () => unknown) => unknown,
): Target {
  return new Proxy(target, {
    get(_, name) {
      const value: unknown = Reflect.get(target, name)
      if (typeof value !== 'function') return value
      if (typeof name === 'symbol') return value.bind(target)
      return (...args: unknown[]) => around(name, args, () => value.apply(target, args))
    },
  })
}

/** Calls after which a resynchronization may have become necessary, or a cursor moved. */
const changing: ReadonlySet<string> = new Set(['add', 'requireSync', 'capture', 'acknowledge', 'owe'])

export function watchedEngine(world: WatchedWorld, engine: CaptureEngine): CaptureEngine {
  /** What was seen after the last changing call, where nothing can have changed since but for the worse. */
  const settled = new Map<VmId, SourceVmState>()
  const around = async (name: string, args: readonly unknown[], run: () => unknown): Promise<unknown> => {
    const vmId = vmIdOf(args[0])
    const vm = vmId && world.vm(vmId)
    if (vm && name === 'openSync')
      return judgedSession(world, vm, {
        session: (await run()) as SyncSession,
        newestSeq: (args[1] as { newestSeq: number }).newestSeq,
      })
    if (vm && name === 'nextDelta')
      return await judgedOrder(world, vm, { engine, delta: (await run()) as SealedDelta | undefined })
    if (!vm || !changing.has(name)) return await run()
    const before = settled.get(vm.vmId) ?? (await engine.state(vm.vmId))
    judgeOwed(world, vm, before)
    if (name === 'owe') await judgePromise(world, vm, { engine, range: args[1] as OwedRange })
    try {
      const result = await run()
      if (name === 'capture') judgeCapture(world, vm, result as Awaited<ReturnType<CaptureEngine['capture']>>)
      return result
    } finally {
      const after = await engine.state(vm.vmId)
      if (after && !after.needsSync && after.owed.length === 0) settled.set(vm.vmId, after)
      else settled.delete(vm.vmId)
      if (after?.needsSync && !before?.needsSync) {
        const { maxBytes } = await engine.usage()
        judgeCause(world, vm, { cause: after.needsSync, state: after, maxBytes })
      }
      if (after && after.epoch === vm.epoch) {
        if (name === 'owe') judgeOwed(world, vm, after)
        vm.owed = after.owed
        vm.ackedSeq = Math.max(vm.ackedSeq, after.ackedSeq)
      }
    }
  }
  return looked(engine, around)
}

function vmIdOf(argument: unknown): VmId | undefined {
  if (typeof argument === 'string') return argument as VmId
  if (typeof argument === 'object' && argument !== null && 'vmId' in argument) return argument.vmId as VmId
  return undefined
}

function judgeCause(
  { truth, note }: WatchedWorld,
  vm: ProtectedVm,
  { cause, state, maxBytes }: { cause: ResyncCause; state: SourceVmState; maxBytes: number },
): void {
  note(`${vm.vmId} resynchronizes: ${cause}`)
  const left = vm.expectedCauses.get(cause) ?? 0
  if (left > 0) vm.expectedCauses.set(cause, left - 1)
  else if (cause !== 'buffer-overflow' || touchedBytes(truth, vm, state) < maxBytes)
    truth.violate('I7', `${vm.vmId} is resynchronized because of "${cause}", which no fault explains`)
}

/** At most so much was there to be captured, with what a row takes beside its payload. */
function touchedBytes(truth: Truth, vm: ProtectedVm, { epoch, sealedSeq }: SourceVmState): number {
  const bases = truth.signed(vm.vmId, { epoch, seq: sealedSeq })
  const since = Math.min(...bases.map(({ instant }) => instant.change))
  return vm.guest.touchedSince(since) * (BLOCK_BYTES + 256)
}

function judgeCapture(
  { truth, note }: WatchedWorld,
  vm: ProtectedVm,
  outcome: Awaited<ReturnType<CaptureEngine['capture']>>,
): void {
  if (outcome.kind !== 'sealed') {
    note(`${vm.vmId} ${outcome.kind}`)
    return
  }
  const { epoch, seq, baseSeq, stats, capturedAtMs } = outcome.delta
  note(`${vm.vmId} sealed ${epoch}/${seq} at ${capturedAtMs}: ${stats.changedBlocks} blocks`)
  const bases = truth.signed(vm.vmId, { epoch, seq: baseSeq })
  if (bases.length === 0) return
  const touched = vm.guest.touchedSince(Math.min(...bases.map(({ instant }) => instant.change)))
  if (stats.changedBlocks > touched)
    truth.violate(
      'I6',
      `delta ${epoch}/${seq} of ${vm.vmId} holds ${stats.changedBlocks} blocks; ${touched} were touched since ${baseSeq}`,
    )
}

/** Counts what a synchronization sends: no more than what was touched since the target's newest point. */
function judgedSession(
  { truth, note }: WatchedWorld,
  vm: ProtectedVm,
  { session, newestSeq }: { session: SyncSession; newestSeq: number },
): SyncSession {
  const bases = truth.signed(vm.vmId, { epoch: vm.epoch, seq: newestSeq })
  const since =
    newestSeq > 0 && bases.length > 0 ? Math.min(...bases.map(({ instant }) => instant.change)) : 0
  const badBlocks = () =>
    vm.target.parts?.store.proof(vm.vmId).reduce((sum, disk) => sum + disk.badBlocks, 0) ?? 0
  // What the target is known to have lost travels as well.
  let lost = badBlocks()
  let sent = 0
  note(`${vm.vmId} synchronizes ${session.seq} on ${newestSeq}`)
  return looked(session, async (name, _args, run) => {
    const result = await run()
    if (name === 'differingBlocks')
      for (const { blockIndexes } of result as Awaited<ReturnType<SyncSession['differingBlocks']>>)
        sent += blockIndexes.length
    if (name !== 'manifest') return result
    note(`${vm.vmId} synchronization ${session.seq} sent ${sent} blocks`)
    const all = session.disks.reduce((sum, { sizeBytes }) => sum + blockCountOf(sizeBytes), 0)
    lost = Math.max(lost, badBlocks())
    const bound = since > 0 ? vm.guest.touchedSince(since) + lost : all
    if (sent > bound)
      truth.violate(
        'I7',
        `synchronization ${session.seq} of ${vm.vmId} sent ${sent} blocks; ${bound} can differ`,
      )
    return result
  })
}

export function watchedStore(
  world: WatchedWorld,
  store: ReplicaStore & Disposable,
): ReplicaStore & Disposable {
  return looked(store, (name, args, run) => {
    const vm = name === 'prune' || name === 'keepBackfills' ? world.vm(args[0] as VmId) : undefined
    if (vm && name === 'prune') noteDroppable(vm, store)
    const result = run()
    if (vm && name === 'keepBackfills') vm.takesBackfills = result as boolean
    return result
  })
}

/** Before each step of pruning: whatever it takes away must be what the pure function says now. */
function noteDroppable(vm: ProtectedVm, store: ReplicaStore): void {
  const decisions = decisionsNow(vm, store)
  // Decided and not done: the next decision counts.
  for (const decision of decisions) {
    const name = pointName(decision)
    if (decision.keep) vm.dropped.delete(name)
    else {
      // It may stay for a while, until older points have come below it.
      if (!vm.dropped.has(name)) vm.listed.set(name, { epoch: decision.epoch, seq: decision.seq })
      vm.dropped.add(name)
    }
  }
}

/** What retention says of every point that is listed. */
export function decisionsNow({ vmId }: ProtectedVm, store: ReplicaStore): readonly RetentionDecision[] {
  const listed = pointsIn(store, vmId)
  const policy = store.get(vmId)?.policy
  if (!policy) return []
  const points = listed.map((point) => ({
    ...point,
    inUse: point.overlays.length > 0,
    suspect: point.suspect !== null,
  }))
  return decideRetention({ points, policy: retentionOf(policy) })
}
