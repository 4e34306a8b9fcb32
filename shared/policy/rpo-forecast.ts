/**
 * When the data at the target will be older than twice the copy frequency: the present backlog and the cycles to come
 * are sent, one after the other, over a link as fast as it was lately. Pure.
 *
 * A point that was captured at the frequency F and needs the time t for its way makes the data F + t old just before it
 * arrives. So with churn above the link's rate, the first delta of that churn is the one that breaches: it is foretold
 * when it is sealed, one cycle before it happens, and whenever a backlog grows more slowly than that, earlier.
 */
export interface FlowHistory {
  /** Newest last. */
  readonly cycles: readonly { readonly storedBytes: number; readonly cycleMs: number }[]
  readonly transfers: readonly { readonly bytes: number; readonly ms: number }[]
}

export const noFlow: FlowHistory = { cycles: [], transfers: [] }

/** A dozen cycles: what was before says little about what comes next. */
const MAX_SAMPLES = 12
/** Weight of the newest cycle in the mean. */
const NEWEST_WEIGHT = 0.3
/** A transfer that is smaller and shorter than this shows round trips and seals, not the link. */
const MEASURABLE_BYTES = 1 << 20
const MEASURABLE_MS = 1_000
/** Cycles looked ahead. */
const HORIZON_CYCLES = 120
/** Cycles without a breach in sight until the warning is over. */
const CALM_CYCLES = 3

export function withCycle(history: FlowHistory, cycle: FlowHistory['cycles'][number]): FlowHistory {
  if (cycle.cycleMs <= 0) return history
  return { ...history, cycles: [...history.cycles, cycle].slice(-MAX_SAMPLES) }
}

export function withTransfer(history: FlowHistory, transfer: FlowHistory['transfers'][number]): FlowHistory {
  if (transfer.bytes <= 0 || transfer.ms <= 0) return history
  if (transfer.bytes < MEASURABLE_BYTES && transfer.ms < MEASURABLE_MS) return history
  return { ...history, transfers: [...history.transfers, transfer].slice(-MAX_SAMPLES) }
}

/** Bytes that have to travel for each second of the VM's work; null: no cycle yet. */
export function churnBytesPerSecond(history: FlowHistory): number | null {
  let mean: number | null = null
  for (const { storedBytes, cycleMs } of history.cycles) {
    const rate = (storedBytes * 1000) / cycleMs
    mean = mean === null ? rate : mean + NEWEST_WEIGHT * (rate - mean)
  }
  return mean
}

/** The median of the last transfers: one that was disturbed does not count. null: nothing was large enough to measure. */
export function linkBytesPerSecond(history: FlowHistory): number | null {
  const rates = history.transfers.map(({ bytes, ms }) => (bytes * 1000) / ms).sort((a, b) => a - b)
  return rates[Math.floor(rates.length / 2)] ?? null
}

export interface FlowNow {
  readonly nowMs: number
  readonly frequencyMs: number
  /** From one cycle to the next: the frequency, or more when the target asked for it. */
  readonly cycleMs: number
  /** Capture time of the newest point at the target. */
  readonly newestAckedAtMs: number
  /** Sealed and not acknowledged, oldest first. */
  readonly pending: readonly { readonly capturedAtMs: number; readonly bytes: number }[]
  readonly churnBytesPerSecond: number
  /** 0: there is none. */
  readonly linkBytesPerSecond: number
}

/** When the data age reaches twice the copy frequency; in the past when it has; null: not within the horizon. */
export function predictBreach(flow: FlowNow): number | null {
  const { nowMs, frequencyMs, cycleMs, pending } = flow
  const limitMs = 2 * frequencyMs
  let newestMs = flow.newestAckedAtMs
  let freeMs = nowMs
  if (nowMs > newestMs + limitMs) return newestMs + limitMs
  const lastCaptureMs = pending.at(-1)?.capturedAtMs ?? newestMs
  const nextCaptureMs = Math.max(nowMs, lastCaptureMs + cycleMs)
  const cycleBytes = (flow.churnBytesPerSecond * cycleMs) / 1000
  for (let i = 0; i < pending.length + HORIZON_CYCLES; i++) {
    const capturedAtMs = pending[i]?.capturedAtMs ?? nextCaptureMs + (i - pending.length) * cycleMs
    const bytes = pending[i]?.bytes ?? cycleBytes
    const arrivesMs =
      Math.max(freeMs, capturedAtMs) + (bytes > 0 ? (bytes * 1000) / flow.linkBytesPerSecond : 0)
    // With no link at all nothing arrives, however little it is.
    if (flow.linkBytesPerSecond <= 0 || arrivesMs > newestMs + limitMs) return newestMs + limitMs
    newestMs = Math.max(newestMs, capturedAtMs)
    freeMs = arrivesMs
  }
  return null
}

export type ForecastWarning =
  | { readonly kind: 'calm' }
  | { readonly kind: 'warned'; readonly calmCycles: number }

/** Once for each crossing: raised when a breach comes into sight, over after some cycles without one. */
export function stepWarning(
  warning: ForecastWarning,
  breachAtMs: number | null,
  nowMs: number,
): { readonly warning: ForecastWarning; readonly event: 'raised' | 'over' | null } {
  if (warning.kind === 'calm') {
    // What has happened already is no forecast; the data age shows it.
    if (breachAtMs === null || breachAtMs <= nowMs) return { warning, event: null }
    return { warning: { kind: 'warned', calmCycles: 0 }, event: 'raised' }
  }
  if (breachAtMs !== null) return { warning: { kind: 'warned', calmCycles: 0 }, event: null }
  const calmCycles = warning.calmCycles + 1
  if (calmCycles < CALM_CYCLES) return { warning: { kind: 'warned', calmCycles }, event: null }
  return { warning: { kind: 'calm' }, event: 'over' }
}
