import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Clock } from '#shared/clock.ts'

/** Lets other calls of the worker have their turn during long synchronous work. */
export class Pace {
  readonly #clock: Clock
  readonly #everyMs: number
  #turnStartedMs: number

  constructor(clock: Clock, everyMs: number) {
    this.#clock = clock
    this.#everyMs = everyMs
    this.#turnStartedMs = clock.monotonicMs()
  }

  /** Await it when there is one. */
  pauseIfDue(): Promise<void> | undefined {
    return this.#clock.monotonicMs() - this.#turnStartedMs < this.#everyMs ? undefined : this.pause()
  }

  async pause(): Promise<void> {
    await nextTurn()
    this.#turnStartedMs = this.#clock.monotonicMs()
  }
}
