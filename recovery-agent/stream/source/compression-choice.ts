/**
 * Whether compressing pays (DESIGN §5): both ways are tried while a synchronization runs, and the one that brings more
 * raw blocks to the target in the same time is kept. That counts everything, the compressor, the link, a throttle and
 * the processors of both ends, however busy they are with other work. Pure: it is told what went out when.
 */

type Way = 'compressed' | 'raw'

/** A rate is measured over this much payload: as much as the window of credit. */
const WINDOW_BYTES = 8 * 2 ** 20
/** After so many windows (512 MiB) the way that lost is tried once more, and when it loses again, after twice as many. */
const FIRST_RETRY_WINDOWS = 64
const LAST_RETRY_WINDOWS = 4096
/**
 * Or as soon as the way in use has become so many times as fast, or as slow: something has changed. One window says little
 * on a busy host, so what it ordinarily brings is taken after so many, and looked at after as many again.
 */
const DRIFT = 2
const DRIFT_WINDOWS = 16
const STEADY_WEIGHT = 0.1
/** How much faster compressed blocks must be: they cost the processors of both ends, which others need too. */
const ADVANTAGE = 1.1
/** Any compressor makes more raw bytes a ms (20 MB/s), so below it the link is what limits, and is not tried with raw blocks. */
const SLOW_BYTES_PER_MS = 20_000
const NEWEST_WEIGHT = 0.3
/** A link of 100 Mbit/s: what it took so long to bring is worth compressing, whatever else there is to do. */
const SLOW_LINK_BYTES_PER_SECOND = 12_500_000

interface Rate {
  readonly rawBytesPerMs: number
  /** The same over more windows, and how many there were. */
  readonly steadyBytesPerMs: number
  readonly windows: number
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

/** What both ways bring over one link, from all VMs that use it. */
export class WayRates {
  #rates: Readonly<Record<Way, Rate | null>> = { compressed: null, raw: null }
  #retryWindows = FIRST_RETRY_WINDOWS
  /** What the way in use brought when it had been in use for a while. */
  #ordinaryBytesPerMs = 0

  /** Without experience: yes. */
  get worthwhile(): boolean {
    const { compressed, raw } = this.#rates
    if (!compressed) return true
    if (!raw) return compressed.rawBytesPerMs < SLOW_BYTES_PER_MS
    const pays = isBetter('compressed', compressed, raw)
    if (pays && compressed.rawBytesPerMs < SLOW_BYTES_PER_MS) return true
    const [inUse, other] = pays ? [compressed, raw] : [raw, compressed]
    const isDue = other.age >= this.#retryWindows || this.#hasDrifted(inUse, other.age)
    return isDue ? !pays : pays
  }

  measured(way: Way, now: number): void {
    const other = way === 'raw' ? 'compressed' : 'raw'
    const { [way]: before, [other]: passed } = this.#rates
    const isOld = before === null || before.age >= DRIFT_WINDOWS
    const rate = isOld ? firstRate(now) : nextRate(before, now)
    const age = (passed?.age ?? 0) + 1
    if (age === DRIFT_WINDOWS) this.#ordinaryBytesPerMs = rate.steadyBytesPerMs
    const wasInUse = before !== null && passed !== null && isBetter(way, before, passed)
    this.#rates = { ...this.#rates, [way]: rate, [other]: passed && { ...passed, age } }
    if (passed === null || wasInUse) return
    if (isBetter(way, rate, passed)) this.#retryWindows = FIRST_RETRY_WINDOWS
    else if (isOld) this.#retryWindows = Math.min(this.#retryWindows * 2, LAST_RETRY_WINDOWS)
  }

  /** `windows`: since the two were compared. */
  #hasDrifted({ steadyBytesPerMs }: Rate, windows: number): boolean {
    if (windows < 2 * DRIFT_WINDOWS) return false
    const ordinary = this.#ordinaryBytesPerMs
    return steadyBytesPerMs > DRIFT * ordinary || DRIFT * steadyBytesPerMs < ordinary
  }
}

/** Whether `way`, which brings `rate`, is the one to use. */
function isBetter(way: Way, rate: Rate, other: Rate): boolean {
  const [compressed, raw] = way === 'compressed' ? [rate, other] : [other, rate]
  const pays = compressed.rawBytesPerMs > ADVANTAGE * raw.rawBytesPerMs
  return way === 'compressed' ? pays : !pays
}

function firstRate(now: number): Rate {
  return { rawBytesPerMs: now, steadyBytesPerMs: now, windows: 1, age: 0 }
}

function nextRate(before: Rate, now: number): Rate {
  const towards = (was: number, weight: number) => was + weight * (now - was)
  const windows = before.windows + 1
  return {
    rawBytesPerMs: towards(before.rawBytesPerMs, NEWEST_WEIGHT),
    steadyBytesPerMs: towards(before.steadyBytesPerMs, Math.max(STEADY_WEIGHT, 1 / windows)),
    windows,
    age: 0,
  }
}

/** Of one VM. */
export class CompressionChoice {
  readonly #rates: WayRates
  #window = { way: 'raw' as Way, storedBytes: 0, rawBytes: 0, startedMs: 0 }

  /** `rates`: of the link, shared with the other VMs on it. */
  constructor(rates: WayRates = new WayRates()) {
    this.#rates = rates
  }

  get worthwhile(): boolean {
    return this.#rates.worthwhile
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
    this.#rates.measured(way, rawBytes / Math.max(nowMs - startedMs, 0.1))
  }
}
