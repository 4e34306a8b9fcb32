import type { OwedRange } from '#recovery-agent/buffer/owed.ts'
import type { FabricVmId, OverlayId, VmId } from '#shared/ids.ts'
import type { PointRef, ResyncCause } from '#shared/messages/commands.ts'
import type { ReplicationPolicy } from '#shared/messages/policy.ts'
import type { Guest } from './guest.ts'
import type { Host } from './host.ts'

/** What the coordinator of a history knows of one VM, and what must hold of it. */
export interface ProtectedVm {
  readonly vmId: VmId
  guest: Guest
  fabricVmId: FabricVmId
  epoch: number
  source: Host
  target: Host
  policy: ReplicationPolicy
  isPaused: boolean
  /** Points that must stay: `epoch/seq`. */
  readonly pinned: Set<string>
  readonly overlays: Map<OverlayId, PointRef>
  /** Points that were listed, and are not known to be gone rightly. */
  readonly listed: Map<string, PointRef>
  /** Points that retention decided to drop. */
  readonly dropped: Set<string>
  /** Resynchronizations that the faults of this history explain, by cause. */
  readonly expectedCauses: Map<ResyncCause, number>
  /** Highest seq that was acknowledged at the source, in this epoch. */
  ackedSeq: number
  /** What the target last said about whether points can be put below newer ones. */
  takesBackfills: boolean
  /** What the source last said that it still owes the target. */
  owed: readonly OwedRange[]
  /**
   * What is known of the layers at the target: a bit of one may have turned since they were last proved (unproved), or
   * they were proved since, and what is still wrong is said to be.
   */
  rot: 'none' | 'unproved' | 'proved'
  /** Points of older epochs that were there when the fence fell: `epoch/seq`. */
  fencedPoints: ReadonlySet<string> | undefined
}

export function pointName({ epoch, seq }: PointRef): string {
  return `${epoch}/${seq}`
}

export function expectCause(vm: ProtectedVm, cause: ResyncCause): void {
  vm.expectedCauses.set(cause, (vm.expectedCauses.get(cause) ?? 0) + 1)
}
