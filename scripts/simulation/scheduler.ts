/**
 * Virtual time. Nothing in a simulation waits for a real clock, socket or disk: when every promise that can go on has
 * gone on, time jumps to the next timer. One thread, timers in order, so one seed has one history.
 */
import type { Clock } from '#shared/clock.ts'

interface Timer {
  readonly atMs: number
  /** Timers of one instant fire in the order they were set. */
  readonly number: number
  run: (() => void) | undefined
}

/** A power of two, so that sums of times are exact: whoever waits for a rest of time that rounds to nothing waits for ever. */
const TICKS_PER_MS = 1024

export class Scheduler {
  readonly #heap: Timer[] = []
  #nowMs = 0
  #lastNumber = 0

  get nowMs(): number {
    return this.#nowMs
  }

  /** Answers what cancels it. */
  at(atMs: number, run: () => void): () => void {
    const onGridMs = Math.ceil(atMs * TICKS_PER_MS) / TICKS_PER_MS
    const timer: Timer = { atMs: Math.max(onGridMs, this.#nowMs), number: ++this.#lastNumber, run }
    this.#push(timer)
    return () => {
      timer.run = undefined
    }
  }

  after(ms: number, run: () => void): () => void {
    return this.at(this.#nowMs + ms, run)
  }

  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => this.after(ms, resolve))
  }

  /** Lets everything happen that happens until then. */
  async runUntil(untilMs: number): Promise<void> {
    for (;;) {
      await settled()
      const next = this.#heap[0]
      if (!next || next.atMs > untilMs) break
      this.#pop()
      if (!next.run) continue
      this.#nowMs = next.atMs
      next.run()
    }
    this.#nowMs = Math.max(this.#nowMs, Math.ceil(untilMs * TICKS_PER_MS) / TICKS_PER_MS)
  }

  #push(timer: Timer): void {
    const heap = this.#heap
    let at = heap.push(timer) - 1
    while (at > 0) {
      const parent = (at - 1) >> 1
      const above = heap[parent]
      if (!above || isBefore(above, timer)) break
      heap[at] = above
      at = parent
    }
    heap[at] = timer
  }

  #pop(): void {
    const heap = this.#heap
    const last = heap.pop()
    if (!last || heap.length === 0) return
    let at = 0
    for (;;) {
      const left = heap[2 * at + 1]
      const right = heap[2 * at + 2]
      const child = right && left && isBefore(right, left) ? 2 * at + 2 : 2 * at + 1
      const below = heap[child]
      if (!below || isBefore(last, below)) break
      heap[at] = below
      at = child
    }
    heap[at] = last
  }
}

function isBefore(a: Timer, b: Timer): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.number < b.number)
}

/** Every promise that can go on without time passing has gone on: immediates run after all microtasks. */
function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

/**
 * The clock of one life of a host. Its monotonic time starts with the life, its wall clock is off by `skewMs`, which
 * may jump. After `stop` whoever sleeps sleeps for ever: nothing of a killed process goes on.
 */
export class LifeClock implements Clock {
  readonly #scheduler: Scheduler
  readonly #skewMs: () => number
  readonly #bornMs: number
  #isStopped = false

  constructor(scheduler: Scheduler, skewMs: () => number) {
    this.#scheduler = scheduler
    this.#skewMs = skewMs
    this.#bornMs = scheduler.nowMs
  }

  now(): number {
    return Math.round(START_MS + this.#scheduler.nowMs + this.#skewMs())
  }

  monotonicMs(): number {
    return 1000 + this.#scheduler.nowMs - this.#bornMs
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#isStopped) return
      if (signal?.aborted) return reject(signal.reason)
      const cancel = this.#scheduler.after(Math.max(0, ms), () => {
        signal?.removeEventListener('abort', onAbort)
        if (!this.#isStopped) resolve()
      })
      const onAbort = () => {
        cancel()
        if (!this.#isStopped) reject(signal?.reason)
      }
      signal?.addEventListener('abort', onAbort, { once: true })
    })
  }

  stop(): void {
    this.#isStopped = true
  }
}

/**
 * The same clock for work that ends when its share of time is over: each time it looks, some has passed. Else a proof
 * or a merge would be done whole in no time, and nothing would ever come between two of its steps.
 */
export function workingClock(clock: Clock): Clock {
  let workedMs = 0
  return {
    now: () => clock.now(),
    monotonicMs: () => {
      workedMs += WORK_MS
      return clock.monotonicMs() + workedMs
    },
    sleep: (ms, signal) => clock.sleep(ms, signal),
  }
}

/** A group of blocks read from a disk. */
const WORK_MS = 4

/** Wall clock at the beginning of every history. */
export const START_MS = 1_800_000_000_000
