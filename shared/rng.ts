import { randomBytes } from 'node:crypto'

/** The only source of randomness that is not a key. Seeded in tests, so that a run can be repeated. */
export interface Rng {
  /** Uniform in [0, 1). */
  next(): number
}

export const systemRng: Rng = {
  next: () => randomBytes(6).readUIntBE(0, 6) / 2 ** 48,
}

/** mulberry32: small, fast, good enough for tests and jitter; the same seed gives the same run. */
export function seededRng(seed: number): Rng {
  let state = seed >>> 0
  return {
    next() {
      state = (state + 0x6d2b79f5) >>> 0
      let t = state
      t = Math.imul(t ^ (t >>> 15), t | 1)
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
      return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
    },
  }
}

/** Integer in [0, exclusiveMax). */
export function intBelow(rng: Rng, exclusiveMax: number): number {
  return Math.floor(rng.next() * exclusiveMax)
}
