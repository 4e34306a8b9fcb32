/**
 * What is known without the engine: the guests' disks at every instant a point was signed for, and which points,
 * pins and fences there must be. A point is judged by this alone.
 */
import type { DiskId, VmId } from '#shared/ids.ts'
import type { PointManifest } from '#shared/trust/point-manifest.ts'
import type { Instant } from './guest.ts'

export interface Violation {
  readonly invariant: string
  readonly what: string
}

export interface SignedPoint {
  readonly epoch: number
  readonly seq: number
  readonly capturedAtMs: number
  readonly instant: Instant
}

export class Truth {
  readonly violations: Violation[] = []
  readonly #signed = new Map<string, SignedPoint[]>()
  pointsVerified = 0
  /** Older points that came below newer ones. */
  pointsBackfilled = 0

  violate(invariant: string, what: string): void {
    // One cause shows in every later check: the first of a kind says it.
    if (this.violations.length < 20) this.violations.push({ invariant, what })
  }

  sign({ vmId, epoch, seq, capturedAtMs }: PointManifest, instant: Instant): void {
    const key = keyOf(vmId, epoch, seq)
    const signed = this.#signed.get(key) ?? []
    signed.push({ epoch, seq, capturedAtMs, instant })
    this.#signed.set(key, signed)
  }

  /** Every instant that may be called by this name: a capture that was killed before its seal leaves one behind. */
  signed(vm: VmId, point: { epoch: number; seq: number; capturedAtMs?: number }): readonly SignedPoint[] {
    const all = this.#signed.get(keyOf(vm, point.epoch, point.seq)) ?? []
    return all.filter(
      ({ capturedAtMs }) => point.capturedAtMs === undefined || capturedAtMs === point.capturedAtMs,
    )
  }
}

function keyOf(vm: VmId, epoch: number, seq: number): string {
  return `${vm}/${epoch}/${seq}`
}

export type ReadBlock = (disk: DiskId, blockIndex: number) => Buffer | undefined
