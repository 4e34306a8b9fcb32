/**
 * A hint that what was written looks unlike the VM's ordinary work: many more blocks than ever, or data that suddenly
 * does not compress, as after an encryption of all files. Pure; never a judge: it marks a point, it stops nothing.
 *
 * Ordinary is what the last cycles were (median and median deviation, of the logarithm of blocks per minute) and what
 * happened on at least two earlier days, so that a nightly backup is a habit from the third night on. Cycles that were
 * suspect do not count as ordinary, until so many followed each other that they are the new order of things.
 */
export interface CycleSample {
  readonly changedBlocks: number
  /** Mean stored size of sampled blocks by zstd level 1, 0 to 1 of their size; null: too few were sampled. */
  readonly storedShare: number | null
  /** Since the cycle before. */
  readonly seconds: number
  readonly suspect: boolean
}

export interface AnomalyHistory {
  /** The last ordinary cycles, oldest first, and behind them the suspect ones since. */
  readonly recent: readonly CycleSample[]
  /** Of earlier days and the present one: the largest cycle, and the largest of those that hardly compressed. */
  readonly days: readonly { readonly day: number; readonly blocks: number; readonly denseBlocks: number }[]
}

export const noHistory: AnomalyHistory = { recent: [], days: [] }

/** Half an hour of 30-second cycles; what is rarer is the days' business. So many suspect ones are ordinary. */
export const MAX_RECENT_CYCLES = 60
/** Two weeks: what is done every weekend is seen twice. */
export const MAX_DAYS = 15
const DAY_MS = 24 * 3_600_000

/** Fewer cycles say nothing about what is ordinary. */
const MIN_HISTORY = 20
/** A jump: at least 64 MiB, at least eight times the median, and six deviations above it. */
const JUMP_BLOCKS = 1_024
const JUMP_LOG2 = 3
const JUMP_DEVIATIONS = 6
/** A deviation is at least this, so that a VM that always does the same is not startled by a little more. */
const MIN_DEVIATION_LOG2 = 0.25
/** What compresses as ever must be 1 GiB and thirty-two times the median: reindexing a table is work. */
const FAMILIAR_JUMP_BLOCKS = 16_384
const FAMILIAR_JUMP_LOG2 = 5
/** A collapse: at least 16 MiB that keep 90 % of their size, where 75 % and less are ordinary. */
const COLLAPSE_BLOCKS = 256
const DENSE_SHARE = 0.9
const ORDINARY_SHARE = 0.75
/** A habit covers a cycle up to twice as large as on the second largest of the earlier days. */
const HABIT_FACTOR = 2

/** Why this cycle is suspect; null: it is not. */
export function detectAnomaly(
  history: AnomalyHistory,
  cycle: Omit<CycleSample, 'suspect'>,
  nowMs: number,
): string | null {
  const ordinary = history.recent.filter(({ suspect }) => !suspect)
  if (ordinary.length < MIN_HISTORY) return null
  const earlier = history.days.filter(({ day }) => day !== dayOf(nowMs))
  const reasons = [jump(ordinary, earlier, cycle), collapse(ordinary, earlier, cycle)]
  return reasons.filter((reason) => reason !== null).join('; ') || null
}

export function withSample(history: AnomalyHistory, sample: CycleSample, nowMs: number): AnomalyHistory {
  const day = dayOf(nowMs)
  const today = history.days.find((known) => known.day === day) ?? { day, blocks: 0, denseBlocks: 0 }
  const denseBlocks = isDense(sample) ? sample.changedBlocks : 0
  const others = history.days.filter((known) => known.day !== day)
  return {
    recent: withRecent(history.recent, sample),
    days: [
      ...others,
      {
        day,
        blocks: Math.max(today.blocks, sample.changedBlocks),
        denseBlocks: Math.max(today.denseBlocks, denseBlocks),
      },
    ].slice(-MAX_DAYS),
  }
}

function withRecent(recent: readonly CycleSample[], sample: CycleSample): readonly CycleSample[] {
  const ordinary = recent.filter(({ suspect }) => !suspect)
  if (!sample.suspect) return [...ordinary, sample].slice(-MAX_RECENT_CYCLES)
  const suspects = [...recent.filter(({ suspect }) => suspect), sample]
  if (suspects.length < MAX_RECENT_CYCLES) return [...ordinary, ...suspects]
  return suspects.map((one) => ({ ...one, suspect: false }))
}

function jump(
  ordinary: readonly CycleSample[],
  earlier: AnomalyHistory['days'],
  cycle: Omit<CycleSample, 'suspect'>,
): string | null {
  const { changedBlocks } = cycle
  const levels = ordinary.map(levelOf)
  const usual = median(levels)
  const deviation = 1.4826 * Math.max(MIN_DEVIATION_LOG2, median(levels.map((one) => Math.abs(one - usual))))
  const above = levelOf(cycle) - usual
  const familiar = compressesAsEver(ordinary, cycle.storedShare)
  if (changedBlocks < (familiar ? FAMILIAR_JUMP_BLOCKS : JUMP_BLOCKS)) return null
  if (above < (familiar ? FAMILIAR_JUMP_LOG2 : JUMP_LOG2) || above < JUMP_DEVIATIONS * deviation) return null
  if (
    isHabit(
      earlier.map(({ blocks }) => blocks),
      changedBlocks,
    )
  )
    return null
  const usualBlocks = Math.round((2 ** usual - 1) * (cycle.seconds / 60))
  return `${changedBlocks} blocks changed in ${Math.round(cycle.seconds)} s, where about ${usualBlocks} are ordinary`
}

function collapse(
  ordinary: readonly CycleSample[],
  earlier: AnomalyHistory['days'],
  cycle: Omit<CycleSample, 'suspect'>,
): string | null {
  const { changedBlocks, storedShare } = cycle
  if (!isDense(cycle) || storedShare === null || changedBlocks < COLLAPSE_BLOCKS) return null
  const shares = sharesOf(ordinary)
  const usual = median(shares)
  if (shares.length < MIN_HISTORY / 2 || usual > ORDINARY_SHARE) return null
  // Now and then something dense, a picture or an archive, is ordinary when one cycle in ten was so.
  if (quantile(shares, 0.9) >= DENSE_SHARE) return null
  if (
    isHabit(
      earlier.map(({ denseBlocks }) => denseBlocks),
      changedBlocks,
    )
  )
    return null
  return `what was written keeps ${percent(storedShare)} of its size when compressed, where ${percent(usual)} is ordinary`
}

function compressesAsEver(ordinary: readonly CycleSample[], storedShare: number | null): boolean {
  const shares = sharesOf(ordinary)
  return storedShare !== null && shares.length > 0 && storedShare <= quantile(shares, 0.9) + 0.05
}

function sharesOf(samples: readonly CycleSample[]): number[] {
  return samples.flatMap(({ storedShare }) => (storedShare === null ? [] : [storedShare]))
}

function isDense({ storedShare }: Pick<CycleSample, 'storedShare'>): boolean {
  return storedShare !== null && storedShare >= DENSE_SHARE
}

function isHabit(ofDays: readonly number[], blocks: number): boolean {
  const secondLargest = [...ofDays].sort((a, b) => b - a)[1] ?? 0
  return blocks <= secondLargest * HABIT_FACTOR
}

/** log2 of blocks per minute. */
function levelOf({ changedBlocks, seconds }: Pick<CycleSample, 'changedBlocks' | 'seconds'>): number {
  return Math.log2(1 + (changedBlocks * 60) / Math.max(1, seconds))
}

function median(values: readonly number[]): number {
  return quantile(values, 0.5)
}

function quantile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0
}

function percent(share: number): string {
  return `${Math.round(share * 100)} %`
}

function dayOf(nowMs: number): number {
  return Math.floor(nowMs / DAY_MS)
}
