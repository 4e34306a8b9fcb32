/**
 * Health of a protected VM. The rules are those of Hyper-V Replica (missed cycles, last sync over an hour ago, paused,
 * resynchronizing), said in data age, because that is what a disaster costs; job colours are not.
 */
import { type EngineState, engineReasons } from './engine-health.ts'
import { isReplicating, type Protection } from './protection.ts'
import { describeMs } from './quantities.ts'
import { type PendingResync, pendingResyncText } from './resync-words.ts'

export type Health = 'none' | 'normal' | 'warning' | 'critical'

export interface HealthInput {
  readonly protection: Protection
  readonly copyFrequencySeconds: number
  /** null: no recovery point. */
  readonly dataAgeMs: number | null
  readonly sourceConnected: boolean
  readonly targetConnected: boolean
  /** What the agents report, if anything, with whether it passes by itself. */
  readonly errors: readonly {
    readonly where: string
    readonly message: string
    readonly retryable: boolean
  }[]
  /** The old source was not yet told that the VM runs elsewhere. */
  readonly fencePending: boolean
  readonly bufferFill: number | null
  /** Offline: a seed is complete. */
  readonly seedExported: boolean
  readonly engine: EngineState
}

export interface HealthReason {
  readonly severity: 'warning' | 'critical'
  readonly text: string
  /** What answers it: "hotsite <command> <VM> <options>". */
  readonly answer?: { readonly command: string; readonly options: string }
}

export interface HealthVerdict {
  readonly health: Health
  readonly reasons: readonly HealthReason[]
}

/** Two cycles and a minute: one cycle may run while the next is due. */
export const warnAgeMs = (copyFrequencySeconds: number): number => 2 * copyFrequencySeconds * 1000 + 60_000
/** Hyper-V Replica's hour, or more where the copy frequency is long. */
export const criticalAgeMs = (copyFrequencySeconds: number): number =>
  Math.max(3_600_000, 4 * copyFrequencySeconds * 1000)

export function judgeHealth(input: HealthInput): HealthVerdict {
  const reasons = [
    ...ofState(input),
    ...ofAge(input),
    ...ofParts(input),
    ...(isReplicating(input.protection) ? engineReasons(input.engine) : []),
  ]
  const worst = reasons.some(({ severity }) => severity === 'critical')
    ? 'critical'
    : reasons.length > 0
      ? 'warning'
      : 'normal'
  const order = { critical: 0, warning: 1 } as const
  return { health: worst, reasons: reasons.toSorted((a, b) => order[a.severity] - order[b.severity]) }
}

const warning = (text: string, command?: string): HealthReason => ({
  severity: 'warning',
  text,
  ...(command === undefined ? {} : { answer: { command, options: '' } }),
})
const critical = (text: string): HealthReason => ({ severity: 'critical', text })

const firstCopyMissing = warning('the first copy is not complete: nothing can be failed over yet')

function ofFirstCopy(resync: PendingResync, nowMs: number): HealthReason {
  const text = `${pendingResyncText(resync, nowMs)}; nothing can be failed over yet`
  return { severity: 'warning', text, answer: { command: 'vm resync', options: '--now' } }
}

function ofSeed(exported: boolean): HealthReason {
  const text = exported
    ? 'the first copy waits in its seed, to be imported at the target: nothing can be failed over yet'
    : 'the seed of the first copy is not complete: nothing can be failed over yet'
  const command = exported ? 'vm import-seed' : 'vm export-seed'
  return { severity: 'warning', text, answer: { command, options: '--folder FOLDER' } }
}

function ofState(input: HealthInput): readonly HealthReason[] {
  const { protection } = input
  const { resync } = input.engine
  switch (protection.kind) {
    case 'awaitingSeed':
      return [ofSeed(input.seedExported)]
    case 'initialReplication':
      if (resync?.waitsFor === 'start-time') return [ofFirstCopy(resync, input.engine.nowMs)]
      return [firstCopyMissing]
    case 'enabling':
      return [firstCopyMissing]
    case 'paused':
      return [warning('replication is paused', 'vm resume')]
    case 'resynchronizing':
      // What waits for a person or a time says so itself, with the command.
      if (resync && resync.waitsFor !== 'estimating') return []
      return [warning(`resynchronizing (${protection.cause}); the existing recovery points remain usable`)]
    case 'failingOver':
      return [warning('a failover is under way')]
    case 'failoverFailed':
      return [critical(`the failover stopped at ${protection.step}: ${protection.reason}`)]
    case 'failedOver':
      return [warning('failed over; choose another point or commit', 'failover commit')]
    case 'committed':
      return [warning('runs unprotected until replication is reversed', 'failover reverse')]
    case 'reversing':
      return [warning('runs unprotected until the reversed replication has its first point')]
    case 'protected':
    case 'disabling':
      return []
  }
}

const ageMatters = (kind: Protection['kind']): boolean =>
  kind === 'protected' || kind === 'paused' || kind === 'resynchronizing'

function ofAge({ protection, dataAgeMs, copyFrequencySeconds }: HealthInput): readonly HealthReason[] {
  if (!ageMatters(protection.kind)) return []
  if (dataAgeMs === null) return [critical('no recovery point is known at the target')]
  const every = `copies are due every ${describeMs(copyFrequencySeconds * 1000)}`
  const text = `the newest recovery point is ${describeMs(dataAgeMs)} old; ${every}`
  if (dataAgeMs > criticalAgeMs(copyFrequencySeconds)) return [critical(text)]
  return dataAgeMs > warnAgeMs(copyFrequencySeconds) ? [warning(text)] : []
}

function ofParts(input: HealthInput): readonly HealthReason[] {
  const reasons: HealthReason[] = []
  const settled = input.protection.kind === 'failedOver' || input.protection.kind === 'committed'
  if (!input.sourceConnected && !settled)
    reasons.push(warning('the source agent is not connected to the coordinator'))
  if (!input.targetConnected) reasons.push(warning('the target agent is not connected to the coordinator'))
  if (input.fencePending) reasons.push(warning('the old source does not know yet that the VM runs elsewhere'))
  if (!settled)
    for (const { where, message, retryable } of input.errors)
      reasons.push((retryable ? warning : critical)(`${where}: ${message}`))
  if (input.bufferFill !== null && input.bufferFill > 0.8)
    reasons.push(warning(`the buffer of the source agent is ${Math.round(input.bufferFill * 100)} % full`))
  return reasons
}

/**
 * Data age: now minus the capture of the newest point complete at the target. The capture time is the source's clock, so
 * the skew measured on its channel is taken out (I14). That skew is of today; a point captured while the clock was hours
 * ahead would look fresh for hours once it is set right. No point is younger than its arrival, by the target's clock with
 * or without its own skew.
 */
export function dataAge(times: {
  readonly nowMs: number
  readonly capturedAtMs: number
  readonly sourceSkewMs: number
  readonly arrival?: { readonly completedAtMs: number; readonly targetSkewMs: number } | undefined
}): number {
  const { nowMs, capturedAtMs, sourceSkewMs, arrival } = times
  const byCapture = nowMs - (capturedAtMs - sourceSkewMs)
  const byArrival = arrival
    ? nowMs - arrival.completedAtMs + Math.min(0, arrival.targetSkewMs)
    : Number.NEGATIVE_INFINITY
  return Math.max(0, byCapture, byArrival)
}
