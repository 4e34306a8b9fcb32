/**
 * Whether a synchronization that is due may begin (I7). Pure.
 *
 *   not before a time      the order names one: nothing begins earlier
 *   initial, requested,    somebody ordered them: at once
 *     reversed
 *   everything else        by the policy: at once, in the window, after a person's word
 *
 * Once begun, a synchronization goes on until the VM has its point: a link that breaks asks nobody again, and neither
 * does a window that closes. Whoever wants it slow by day has the throttle's timetable. A person's word counts for all
 * three kinds of waiting.
 */
import type { ResyncCause } from '../messages/commands.ts'
import type { ReplicationPolicy } from '../messages/policy.ts'
import { DEFAULT_RESYNC_WINDOW, nextOpening, type OffsetAt } from './timetable.ts'

export type ResyncGate =
  | { readonly kind: 'open' }
  | {
      readonly kind: 'waits'
      readonly waitsFor: 'start-time' | 'window' | 'approval'
      /** null: nobody can know. */
      readonly startsAtMs: number | null
    }

export interface ResyncRequest {
  readonly cause: ResyncCause
  /** It began before, or a person said go. */
  readonly cleared: boolean
  readonly notBeforeMs: number | null
  readonly policy: Pick<ReplicationPolicy, 'resync' | 'resyncWindow'>
}

export function decideResync(request: ResyncRequest, nowMs: number, offsetAt: OffsetAt): ResyncGate {
  const { cause, cleared, notBeforeMs, policy } = request
  if (cleared) return { kind: 'open' }
  if (notBeforeMs !== null && nowMs < notBeforeMs)
    return { kind: 'waits', waitsFor: 'start-time', startsAtMs: notBeforeMs }
  if (isOrdered(cause) || policy.resync === 'now') return { kind: 'open' }
  if (policy.resync === 'ask') return { kind: 'waits', waitsFor: 'approval', startsAtMs: null }
  const opensAtMs = nextOpening(policy.resyncWindow ?? DEFAULT_RESYNC_WINDOW, nowMs, offsetAt)
  return opensAtMs === nowMs ? { kind: 'open' } : { kind: 'waits', waitsFor: 'window', startsAtMs: opensAtMs }
}

/** Somebody wants it now; nobody is surprised by it. */
export function isOrdered(cause: ResyncCause): boolean {
  return cause === 'initial' || cause === 'requested' || cause === 'reversed'
}
