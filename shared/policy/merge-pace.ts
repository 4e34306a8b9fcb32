/**
 * How much a source is asked to slow down, so that the merges of its target keep up (DESIGN §5: merge debt is measured
 * and slows the copy frequency before the chain or the disk fills). Pure.
 *
 * The debt is counted in time: bytes still to be copied by the speed merges had so far. A share of the copy frequency
 * may be spent on it; what is more is added to the time between two cycles, in whole steps, so that the next debt is
 * smaller than the one before. A long chain slows as well, whatever the bytes say: each layer costs the one who opens it.
 */

/** Of the copy frequency, what merging may take before anybody is slowed. */
export const DEBT_SHARE = 0.5
/** Slowed once, it stays so until the debt is down to this part of the share: a pace that flickers helps nobody. */
export const RELEASE_SHARE = 0.5
/** Steps of the frequency that are asked for, so that the pace does not change with every cycle. */
const STEP_SHARE = 0.25
/** At most so many times the frequency: data age stays bounded, and the hard limit of the chain does the rest. */
export const MAX_SLOWDOWN = 4
/** Layers beyond which the chain itself slows the source, where some of them are due to be merged. */
export const LONG_CHAIN = 96
/**
 * Layers at which no further delta is taken until merges have made room. QEMU opens every file of a chain, some
 * megabytes and a handle each; a thousand handles is what a process ordinarily may have.
 */
export const MAX_CHAIN = 192
/** Before anything was measured: a slow disk. */
export const PRESUMED_MERGE_BYTES_PER_SECOND = 50 << 20

export interface MergePressure {
  readonly debtBytes: number
  /** null: nothing was merged yet. */
  readonly mergeBytesPerSecond: number | null
  readonly frequencyMs: number
  readonly chainLength: number
  /** Layers that retention has given up and that are not merged yet. */
  readonly dueLayers: number
  /** What the source was asked for last. */
  readonly slowedByMs: number
}

/** Milliseconds to be added to each cycle; 0: none. */
export function slowDownFor(pressure: MergePressure): number {
  const { frequencyMs, slowedByMs } = pressure
  const wantedMs = Math.max(forDebt(pressure), forLength(pressure))
  if (wantedMs > 0) {
    const stepMs = frequencyMs * STEP_SHARE
    const steppedMs = Math.min(Math.ceil(wantedMs / stepMs) * stepMs, frequencyMs * MAX_SLOWDOWN)
    // Less than before only by more than a step.
    return Math.round(steppedMs < slowedByMs && slowedByMs - steppedMs <= stepMs ? slowedByMs : steppedMs)
  }
  const isReleased = debtMs(pressure) <= frequencyMs * DEBT_SHARE * RELEASE_SHARE
  return slowedByMs === 0 || isReleased ? 0 : Math.min(slowedByMs, Math.round(frequencyMs * STEP_SHARE))
}

export function debtMs({
  debtBytes,
  mergeBytesPerSecond,
}: Pick<MergePressure, 'debtBytes' | 'mergeBytesPerSecond'>): number {
  return (debtBytes / Math.max(1, mergeBytesPerSecond ?? PRESUMED_MERGE_BYTES_PER_SECOND)) * 1000
}

function forDebt(pressure: MergePressure): number {
  return Math.max(0, debtMs(pressure) - pressure.frequencyMs * DEBT_SHARE)
}

function forLength({ chainLength, dueLayers, frequencyMs }: MergePressure): number {
  if (dueLayers === 0 || chainLength <= LONG_CHAIN) return 0
  return (frequencyMs * MAX_SLOWDOWN * (chainLength - LONG_CHAIN)) / (MAX_CHAIN - LONG_CHAIN)
}

/** Speed of merges, from what each slice copied and how long it took: a slow average over the bytes copied. */
export class MergeSpeed {
  #bytesPerSecond: number | null = null

  get bytesPerSecond(): number | null {
    return this.#bytesPerSecond
  }

  add({ copiedBytes, elapsedMs }: { readonly copiedBytes: number; readonly elapsedMs: number }): void {
    if (copiedBytes === 0 || elapsedMs <= 0) return
    const now = (copiedBytes / elapsedMs) * 1000
    const weight = Math.min(1, copiedBytes / AVERAGE_BYTES)
    this.#bytesPerSecond =
      this.#bytesPerSecond === null ? now : this.#bytesPerSecond * (1 - weight) + now * weight
  }
}

const AVERAGE_BYTES = 256 << 20
