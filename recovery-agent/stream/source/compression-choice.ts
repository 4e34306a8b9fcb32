/**
 * Whether compressing pays (DESIGN §5): both ways are tried while a synchronization runs, and the one that brings more
 * raw blocks to the target in the same time is kept. That counts everything, the compressor, the link, a throttle and
 * the processors of both ends, however busy they are with other work. Pure: it is told what went out when.
 */

type Way = 'compressed' | 'raw'

/** A rate is measured over this much payload: as much as the window of credit. */
const WINDOW_BYTES = 8 * 2 ** 20
/** After so many windows the way that lost is tried once more. */
const RETRY_WINDOWS = 64
/** How much faster compressed blocks must be: they cost the processors of both ends, which others need too. */
const ADVANTAGE = 1.1
/** Any compressor makes more raw bytes a ms (20 MB/s), so below it the link is what limits, and is not tried with raw blocks. */
const SLOW_BYTES_PER_MS = 20_000
const NEWEST_WEIGHT = 0.3
/** A link of 100 Mbit/s: what it took so long to bring is worth compressing, whatever else there is to do. */
const SLOW_LINK_BYTES_PER_SECOND = 12_500_000

interface Rate {
  readonly rawBytesPerMs: number
  /** Windows of the other way since it was measured. */
  readonly age: number
}

/**
 * Whether the link limits for certain, so that there is nothing to choose: every byte that can be saved is. A throttle says
 * that by itself, however high it is. `throttleBytesPerSecond` 0: none; `linkBytesPerSecond` null: not measured.
 */
export function isLinkScarce(of: {
  readonly throttleBytesPerSecond: number
  readonly linkBytesPerSecond: number | null
}): boolean {
  if (of.throttleBytesPerSecond > 0) return true
  return of.linkBytesPerSecond !== null && of.linkBytesPerSecond < SLOW_LINK_BYTES_PER_SECOND
}

export class CompressionChoice {
  #rates: Readonly<Record<Way, Rate | null>> = { compressed: null, raw: null }
  #window = { way: 'raw' as Way, storedBytes: 0, rawBytes: 0, startedMs: 0 }

  /** Without experience: yes. */
  get worthwhile(): boolean {
    const { compressed, raw } = this.#rates
    if (!compressed) return true
    if (!raw) return compressed.rawBytesPerMs < SLOW_BYTES_PER_MS
    const isBetter = compressed.rawBytesPerMs > ADVANTAGE * raw.rawBytesPerMs
    if (isBetter && compressed.rawBytesPerMs < SLOW_BYTES_PER_MS) return true
    const other = isBetter ? raw : compressed
    return other.age >= RETRY_WINDOWS ? !isBetter : isBetter
  }

  /** A transfer starts: the pause before it says nothing. */
  begin(nowMs: number): void {
    this.#window = { ...this.#window, storedBytes: 0, rawBytes: 0, startedMs: nowMs }
  }

  /** A batch has gone out; batches of one way follow each other. */
  sent(batch: { compressed: boolean; storedBytes: number; rawBytes: number }, nowMs: number): void {
    const way = batch.compressed ? 'compressed' : 'raw'
    // The first batch of another way still waited for those before it.
    if (way !== this.#window.way) {
      this.#window = { way, storedBytes: 0, rawBytes: 0, startedMs: nowMs }
      return
    }
    const storedBytes = this.#window.storedBytes + batch.storedBytes
    const rawBytes = this.#window.rawBytes + batch.rawBytes
    const { startedMs } = this.#window
    if (storedBytes < WINDOW_BYTES) {
      this.#window = { way, storedBytes, rawBytes, startedMs }
      return
    }
    this.#window = { way, storedBytes: 0, rawBytes: 0, startedMs: nowMs }
    this.#measured(way, rawBytes / Math.max(nowMs - startedMs, 0.1))
  }

  #measured(way: Way, now: number): void {
    const before = this.#rates[way]
    const other = way === 'raw' ? 'compressed' : 'raw'
    const isCurrent = before !== null && before.age < RETRY_WINDOWS
    const rawBytesPerMs = isCurrent
      ? before.rawBytesPerMs + NEWEST_WEIGHT * (now - before.rawBytesPerMs)
      : now
    const passed = this.#rates[other]
    this.#rates = {
      ...this.#rates,
      [way]: { rawBytesPerMs, age: 0 },
      [other]: passed && { ...passed, age: passed.age + 1 },
    }
  }
}
