/**
 * How long something that counts bytes still takes. Pure: samples of (time, bytes done) come in.
 *
 * The speed is that of the recent past, a quarter of the time passed so far and at least half a minute, so that it
 * follows a link that became slower, without following every batch. Nothing is said before there is something to say.
 */
export interface ProgressSample {
  readonly atMs: number
  readonly doneBytes: number
}

export interface ProgressHistory {
  /** Ascending in both; the first is the start. */
  readonly samples: readonly ProgressSample[]
}

/** Below this much time a speed is noise. */
const MIN_ELAPSED_MS = 3_000
const MIN_WINDOW_MS = 30_000
/** Samples kept: enough for a window of a quarter of the time with a resolution of some percent. */
const MAX_SAMPLES = 128

export const noProgress: ProgressHistory = { samples: [] }

/** A sample that goes back in time or in bytes begins a new history: something started over. */
export function withSample(history: ProgressHistory, sample: ProgressSample): ProgressHistory {
  const last = history.samples.at(-1)
  if (!last || sample.atMs < last.atMs || sample.doneBytes < last.doneBytes) return { samples: [sample] }
  const samples = [...history.samples, sample]
  return { samples: samples.length > MAX_SAMPLES ? thinned(samples) : samples }
}

/** Never negative; 0 when all is done, null when nothing can be said yet. */
export function secondsLeft(history: ProgressHistory, totalBytes: number, nowMs: number): number | null {
  const first = history.samples[0]
  const last = history.samples.at(-1)
  if (!first || !last) return null
  const leftBytes = totalBytes - last.doneBytes
  if (leftBytes <= 0) return 0
  const endMs = Math.max(nowMs, last.atMs)
  const elapsedMs = endMs - first.atMs
  if (elapsedMs < MIN_ELAPSED_MS || last.doneBytes === first.doneBytes) return null
  const sinceMs = endMs - Math.max(MIN_WINDOW_MS, elapsedMs / 4)
  const from = history.samples.findLast(({ atMs }) => atMs <= sinceMs) ?? first
  // A standstill says nothing about how long it lasts; the speed before it is what is left to go by.
  const recent = last.doneBytes > from.doneBytes ? from : first
  const bytesPerMs = (last.doneBytes - recent.doneBytes) / (endMs - recent.atMs)
  return leftBytes / bytesPerMs / 1000
}

/** Every other one of the older half, and all of the newer. */
function thinned(samples: readonly ProgressSample[]): ProgressSample[] {
  const half = Math.floor(samples.length / 2)
  return samples.filter((_, index) => index >= half || index % 2 === 0)
}
