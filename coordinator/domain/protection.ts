/**
 * The state of a protected VM. Every change of it goes through `transition`; nothing else assigns one.
 *
 *   enabling ──▶ initialReplication ──▶ protected ◀──▶ paused
 *   awaitingSeed ◀──▶ ┘                   (offline: the first copy is carried)
 *                                         ▲  │  ▲        │
 *                                         │  │  └─▶ resynchronizing(cause) ◀┘
 *                                         │  ▼
 *                       ┌─ returned ── failingOver(kind, step) ──▶ failoverFailed
 *                       │                 │  ▲                        │
 *                       ▼                 │  └── change point, ◀───────┘
 *        what it was, or resynchronizing  ▼       or once more
 *                                      failedOver   (commit pending; another point may be chosen)
 *                                         │
 *                                         ▼
 *                                      committed ◀──▶ reversing ──▶ protected (other direction)
 *
 *   disabling is reached from every state in which nothing else is under way, and ends with the VM forgotten.
 */
import { assertNever } from '#shared/assert.ts'
import type { OverlayId } from '#shared/ids.ts'
import type { PointRef, ResyncCause } from '#shared/messages/commands.ts'

export type FailoverKind = 'planned' | 'unplanned' | 'changePoint'

/** Where a planned failover that did not happen returns to, or what an unplanned one left. */
export type ReplicatingState =
  | { readonly kind: 'protected' }
  | { readonly kind: 'paused' }
  | { readonly kind: 'resynchronizing'; readonly cause: ResyncCause }

/** The VM as it runs at the target after a failover. */
export interface Landing {
  readonly overlayId: OverlayId
  readonly point: PointRef
  readonly capturedAtMs: number
}

export type Protection =
  | { readonly kind: 'enabling' }
  /** Offline: the disks are written to a folder, carried, and imported at the target. Nothing replicates meanwhile. */
  | { readonly kind: 'awaitingSeed' }
  | { readonly kind: 'initialReplication' }
  | ReplicatingState
  | {
      readonly kind: 'failingOver'
      readonly failover: FailoverKind
      readonly step: string
      /** null: there is no way back to replication from here. */
      readonly before: ReplicatingState | null
    }
  | {
      readonly kind: 'failoverFailed'
      readonly failover: FailoverKind
      readonly step: string
      readonly reason: string
    }
  | { readonly kind: 'failedOver'; readonly failover: FailoverKind; readonly landing: Landing }
  | { readonly kind: 'committed'; readonly landing: Landing }
  | { readonly kind: 'reversing'; readonly landing: Landing }
  /** from: after a committed failover the VM runs on the replica, which must then stay. */
  | { readonly kind: 'disabling'; readonly from: string }

export type ProtectionKind = Protection['kind']

export type ProtectionEvent =
  | { readonly kind: 'replicationStarted' }
  /** An import was given up after replication had started: the seed can be imported again. */
  | { readonly kind: 'seedReturned' }
  /** A point is complete at the target and the VM is defined there. */
  | { readonly kind: 'ready' }
  | { readonly kind: 'paused' }
  | { readonly kind: 'resumed' }
  | { readonly kind: 'resyncBegan'; readonly cause: ResyncCause }
  | { readonly kind: 'resyncEnded' }
  | { readonly kind: 'failoverBegan'; readonly failover: FailoverKind }
  | { readonly kind: 'failoverStep'; readonly step: string }
  /** Nothing runs at the target; the source replicates on. resync: the epoch was raised, so hashes are compared first. */
  | { readonly kind: 'failoverReturned'; readonly resync: boolean }
  | { readonly kind: 'failoverFailed'; readonly reason: string }
  | { readonly kind: 'failedOver'; readonly landing: Landing }
  | { readonly kind: 'committed' }
  | { readonly kind: 'reverseBegan' }
  | { readonly kind: 'reverseReturned' }
  | { readonly kind: 'disableBegan' }

export type Transition =
  | { readonly kind: 'changed'; readonly state: Protection }
  | { readonly kind: 'refused'; readonly reason: string }

const changed = (state: Protection): Transition => ({ kind: 'changed', state })

/** The one gate. Refusals name the state and the event; they are programming errors when a job meets one. */
export function transition(state: Protection, event: ProtectionEvent): Transition {
  const next = nextState(state, event)
  return next ? changed(next) : { kind: 'refused', reason: `${event.kind} does not apply to ${state.kind}` }
}

function nextState(state: Protection, event: ProtectionEvent): Protection | undefined {
  switch (event.kind) {
    case 'replicationStarted':
      return state.kind === 'enabling' || state.kind === 'awaitingSeed'
        ? { kind: 'initialReplication' }
        : undefined
    case 'seedReturned':
      return state.kind === 'initialReplication' ? { kind: 'awaitingSeed' } : undefined
    case 'ready':
      return state.kind === 'initialReplication' || state.kind === 'reversing'
        ? { kind: 'protected' }
        : undefined
    case 'paused':
      return state.kind === 'protected' || state.kind === 'resynchronizing' ? { kind: 'paused' } : undefined
    case 'resumed':
      return state.kind === 'paused' ? { kind: 'protected' } : undefined
    case 'resyncBegan':
      return isReplicating(state) ? { kind: 'resynchronizing', cause: event.cause } : undefined
    case 'resyncEnded':
      return state.kind === 'resynchronizing' ? { kind: 'protected' } : undefined
    case 'committed':
      return state.kind === 'failedOver' ? { kind: 'committed', landing: state.landing } : undefined
    case 'reverseBegan':
      return state.kind === 'committed' ? { kind: 'reversing', landing: state.landing } : undefined
    case 'reverseReturned':
      return state.kind === 'reversing' ? { kind: 'committed', landing: state.landing } : undefined
    case 'disableBegan':
      if (state.kind === 'disabling') return state
      return canDisable(state) ? { kind: 'disabling', from: state.kind } : undefined
    case 'failoverBegan':
    case 'failoverStep':
    case 'failoverReturned':
    case 'failoverFailed':
    case 'failedOver':
      return nextInFailover(state, event)
    default:
      return assertNever(event)
  }
}

type FailoverEvent = Extract<ProtectionEvent, { kind: `failover${string}` | 'failedOver' }>

function nextInFailover(state: Protection, event: FailoverEvent): Protection | undefined {
  if (event.kind === 'failoverBegan') return beginFailover(state, event.failover)
  if (state.kind !== 'failingOver') return undefined
  const { failover, step, before } = state
  switch (event.kind) {
    case 'failoverStep':
      return { ...state, step: event.step }
    case 'failoverReturned':
      if (!before) return undefined
      return event.resync ? { kind: 'resynchronizing', cause: 'requested' } : before
    case 'failoverFailed':
      return { kind: 'failoverFailed', failover, step, reason: event.reason }
    case 'failedOver':
      return { kind: 'failedOver', failover, landing: event.landing }
    default:
      return assertNever(event)
  }
}

function beginFailover(state: Protection, failover: FailoverKind): Protection | undefined {
  const begun = (before: ReplicatingState | null): Protection => ({
    kind: 'failingOver',
    failover,
    step: 'begin',
    before,
  })
  switch (failover) {
    case 'planned':
      return state.kind === 'protected' ? begun(state) : undefined
    case 'unplanned':
      if (isReplicating(state)) return begun(state)
      return state.kind === 'failoverFailed' ? begun(null) : undefined
    case 'changePoint':
      return state.kind === 'failedOver' ? begun(null) : undefined
    default:
      return assertNever(failover)
  }
}

export function isReplicating(state: Protection): state is ReplicatingState {
  return state.kind === 'protected' || state.kind === 'paused' || state.kind === 'resynchronizing'
}

function canDisable(state: Protection): boolean {
  switch (state.kind) {
    case 'enabling':
    case 'awaitingSeed':
    case 'initialReplication':
    case 'protected':
    case 'paused':
    case 'resynchronizing':
    case 'failoverFailed':
    case 'committed':
    case 'disabling':
      return true
    case 'failingOver':
    case 'failedOver':
    case 'reversing':
      return false
    default:
      return assertNever(state)
  }
}

/** Where the VM runs, or is meant to run, in this state. */
export function activeSide(state: Protection): 'source' | 'target' {
  switch (state.kind) {
    case 'failedOver':
    case 'committed':
    case 'reversing':
      return 'target'
    case 'failingOver':
      return state.failover === 'changePoint' ? 'target' : 'source'
    case 'failoverFailed':
    case 'enabling':
    case 'awaitingSeed':
    case 'initialReplication':
    case 'protected':
    case 'paused':
    case 'resynchronizing':
    case 'disabling':
      return 'source'
    default:
      return assertNever(state)
  }
}

/** One line for a person. */
export function protectionText(state: Protection): string {
  switch (state.kind) {
    case 'enabling':
      return 'being protected'
    case 'awaitingSeed':
      return 'waiting for its seed'
    case 'initialReplication':
      return 'first copy under way'
    case 'protected':
      return 'protected'
    case 'paused':
      return 'replication paused'
    case 'resynchronizing':
      return `resynchronizing (${state.cause})`
    case 'failingOver':
      return state.failover === 'changePoint'
        ? `changing the recovery point: ${state.step}`
        : `${state.failover} failover: ${state.step}`
    case 'failoverFailed':
      return `failover failed at ${state.step}: ${state.reason}`
    case 'failedOver':
      return 'failed over, commit pending'
    case 'committed':
      return 'failover committed, not protected until replication is reversed'
    case 'reversing':
      return 'replication is being reversed'
    case 'disabling':
      return 'protection is being removed'
    default:
      return assertNever(state)
  }
}
