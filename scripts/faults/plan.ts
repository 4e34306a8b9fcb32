/** What one chaos run does, from its seed alone: printed with --plan, executed by run.ts. */
import { intBelow, type Rng, seededRng } from '#shared/rng.ts'
import { daemonNames } from '../lab-kit/lab.ts'
import { type CrashTarget, crashTargets } from './crash-names.ts'
import { type LinkFault, linkFaults } from './faulty-link.ts'

export type Action =
  /** SIGKILL at a random moment, started again after `downMs`. */
  | { readonly kind: 'kill'; readonly daemon: string; readonly afterMs: number; readonly downMs: number }
  /** Killed and started with HOTSITE_CRASH_AT: dies the n-th time it passes that instant, then started again. */
  | { readonly kind: 'crash'; readonly target: CrashTarget; readonly nth: number }
  | { readonly kind: 'link'; readonly fault: LinkFault; readonly afterMs: number; readonly stallMs: number }

const actionCount = 4

/** Consecutive seeds walk through the crash points, so that as many runs as there are points visit each. */
export function planRun(seed: number): readonly Action[] {
  const rng = seededRng(seed)
  const target = crashTargets[seed % crashTargets.length]
  const first: readonly Action[] = target ? [{ kind: 'crash', target, nth: 1 + intBelow(rng, 2) }] : []
  return [...first, ...Array.from({ length: actionCount }, () => randomAction(rng))]
}

function randomAction(rng: Rng): Action {
  const afterMs = intBelow(rng, 1_200)
  if (rng.next() < 0.5) {
    const daemon = daemonNames[intBelow(rng, daemonNames.length)] ?? 'coordinator'
    return { kind: 'kill', daemon, afterMs, downMs: intBelow(rng, 1_000) }
  }
  const fault = linkFaults[intBelow(rng, linkFaults.length)] ?? 'drop'
  return { kind: 'link', fault, afterMs, stallMs: 300 + intBelow(rng, 1_500) }
}
