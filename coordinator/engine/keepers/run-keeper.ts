import type { Engine } from '../engine.ts'

/** A round of work after every wake-up and at least every `everyMs`; a round that breaks is tried again at the next. */
export async function runKeeper(
  engine: Engine,
  keeper: { name: string; round: (engine: Engine) => Promise<void>; everyMs: number; onBus: boolean },
  signal: AbortSignal,
): Promise<void> {
  const { name, round, everyMs, onBus } = keeper
  while (!signal.aborted) {
    const seen = engine.bus.version
    try {
      await round(engine)
    } catch (error) {
      engine.log.error('keeper round broke; it is tried again', { keeper: name, error })
      await engine.clock.sleep(engine.limits.keeperMs, signal).catch(() => {})
    }
    if (onBus) await engine.bus.changedSince(seen, { timeoutMs: everyMs, signal })
    else await engine.clock.sleep(everyMs, signal).catch(() => {})
  }
}
