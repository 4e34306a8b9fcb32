/**
 * Whether compressing pays (DESIGN §5): it does while link and target take compressed blocks faster than raw ones, and
 * not while they take raw blocks as fast as they can be compressed. Pure: it is told what took how long.
 *
 *   compressed  min(what the compressor makes, what the link drains ÷ what is left of a block)
 *   raw         min(what reading makes, what the link drains)                        both in raw bytes per ms
 */

/** A rate is measured over at least this much payload: what the window of credit swallows says nothing of the link. */
const WINDOW_BYTES = 8 * 2 ** 20
/** After so many windows in which the link waited for us, what it once drained is forgotten and tried anew. */
const FORGET_WINDOWS = 64
/** How much faster compressed blocks must be: it costs the processors of both ends, which others need too. */
const ADVANTAGE = 1.1
const NEWEST_WEIGHT = 0.3

/** Before anything was measured: one core here compresses mixed files at 150 MB/s to half their size. */
const priorCompressor = { rawBytesPerMs: 150_000, keeps: 0.5 }

const emptyWindow = { bytes: 0, busyMs: 0, waitedMs: 0 }

export class CompressionChoice {
  #compressor = priorCompressor
  #readingBytesPerMs = Number.POSITIVE_INFINITY
  /** Null: nothing is known of the link. Infinity: it waited for us. */
  #linkBytesPerMs: number | null = null
  #idleWindows = 0
  #window = emptyWindow
  #lastEndedMs = 0

  get worthwhile(): boolean {
    const link = this.#linkBytesPerMs
    if (link === null) return true
    const compressed = Math.min(this.#compressor.rawBytesPerMs, link / this.#compressor.keeps)
    return compressed > ADVANTAGE * Math.min(this.#readingBytesPerMs, link)
  }

  /** Blocks were read and stored, zero blocks not counted. */
  made(made: { compressed: boolean; rawBytes: number; storedBytes: number; tookMs: number }): void {
    if (made.rawBytes === 0) return
    const rate = made.rawBytes / Math.max(made.tookMs, 0.1)
    if (!made.compressed) {
      this.#readingBytesPerMs = mixed(this.#readingBytesPerMs, rate)
      return
    }
    this.#compressor = {
      rawBytesPerMs: mixed(this.#compressor.rawBytesPerMs, rate),
      keeps: mixed(this.#compressor.keeps, Math.max(made.storedBytes / made.rawBytes, 0.01)),
    }
  }

  /** A transfer starts: the pause before it says nothing. */
  begin(nowMs: number): void {
    this.#window = emptyWindow
    this.#lastEndedMs = nowMs
  }

  /** Payload went out: from the wish to send it until credit, throttle, turn and socket had let it pass. */
  sent(sent: { storedBytes: number; startedMs: number; endedMs: number }): void {
    const { bytes, busyMs, waitedMs } = this.#window
    const window = {
      bytes: bytes + sent.storedBytes,
      busyMs: busyMs + (sent.endedMs - sent.startedMs),
      waitedMs: waitedMs + (sent.startedMs - this.#lastEndedMs),
    }
    this.#lastEndedMs = sent.endedMs
    this.#window = window
    if (window.bytes < WINDOW_BYTES) return
    this.#window = emptyWindow
    if (window.busyMs >= window.waitedMs) {
      this.#idleWindows = 0
      this.#linkBytesPerMs = mixed(
        this.#linkBytesPerMs ?? Number.POSITIVE_INFINITY,
        window.bytes / window.busyMs,
      )
      return
    }
    this.#idleWindows += 1
    if (this.#linkBytesPerMs === null || this.#idleWindows > FORGET_WINDOWS)
      this.#linkBytesPerMs = Number.POSITIVE_INFINITY
  }
}

function mixed(before: number, now: number): number {
  return Number.isFinite(before) ? before + NEWEST_WEIGHT * (now - before) : now
}
