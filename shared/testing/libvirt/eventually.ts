import { systemClock } from '../../clock.ts'

/** An emulated guest boots in five seconds, and in a minute on a machine that is busy with other tests. */
const PATIENCE_MS = 150_000

/** Waits for a condition of guests and daemons, never for a time. */
export async function eventually(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const deadlineMs = systemClock.monotonicMs() + PATIENCE_MS
  while (!(await holds())) {
    if (systemClock.monotonicMs() > deadlineMs) throw new Error(`still not: ${what}`)
    await systemClock.sleep(20)
  }
}
