import { type Clock, systemClock } from '#shared/clock.ts'
import { Wakeup } from '#shared/wakeup.ts'

/** The system's clock, which a test may push ahead: whoever sleeps until before then wakes at once. */
export class JumpingClock implements Clock {
  readonly #jumped = new Wakeup()
  #aheadMs = 0
  #wallAheadMs = 0

  jump(ms: number): void {
    this.#aheadMs += ms
    this.#jumped.notify()
  }

  /** Somebody sets the wall clock; nobody wakes from it. */
  jumpWall(ms: number): void {
    this.#wallAheadMs += ms
  }

  now(): number {
    return systemClock.now() + this.#wallAheadMs
  }

  monotonicMs(): number {
    return systemClock.monotonicMs() + this.#aheadMs
  }

  async sleep(ms: number, signal: AbortSignal = new AbortController().signal): Promise<void> {
    const untilMs = this.monotonicMs() + ms
    do {
      await this.#jumped.nextOrAfter(systemClock, untilMs - this.monotonicMs(), signal)
    } while (this.monotonicMs() < untilMs)
  }
}
