/**
 * A test failover, beside the protection of its VM and independent of it: replication goes on meanwhile.
 *
 *   none ──▶ preparing ──▶ running (a person is looking) ──▶ cleaningUp ──▶ none, with outcome and notes kept
 *               └───────────────── failed ─────────────────────▲
 */
import { assertNever } from '#shared/assert.ts'
import type { FabricVmId, OverlayId } from '#shared/ids.ts'
import type { PointRef } from '#shared/messages/commands.ts'

export interface Drill {
  readonly atMs: number
  readonly ok: boolean
  readonly notes: string
}

export interface TestRun {
  readonly overlayId: OverlayId
  readonly fabricVmId: FabricVmId
  readonly startedAtMs: number
  /** null until the overlay stands on one. */
  readonly point: PointRef | null
  readonly network: string | null
}

export type TestFailover =
  | { readonly kind: 'none'; readonly lastDrill: Drill | null }
  | { readonly kind: 'preparing'; readonly run: TestRun; readonly lastDrill: Drill | null }
  | { readonly kind: 'running'; readonly run: TestRun; readonly lastDrill: Drill | null }
  | {
      readonly kind: 'cleaningUp'
      readonly run: TestRun
      readonly notes: string
      readonly outcome: 'passed' | 'failed'
      readonly lastDrill: Drill | null
    }

export type TestFailoverEvent =
  | { readonly kind: 'testBegan'; readonly run: TestRun }
  | { readonly kind: 'testOverlayReady'; readonly point: PointRef }
  | { readonly kind: 'testRunning' }
  | { readonly kind: 'testCleanupBegan'; readonly notes: string; readonly outcome: 'passed' | 'failed' }
  | { readonly kind: 'testCleaned'; readonly atMs: number }

export type TestTransition =
  | { readonly kind: 'changed'; readonly state: TestFailover }
  | { readonly kind: 'refused'; readonly reason: string }

export function transitionTest(state: TestFailover, event: TestFailoverEvent): TestTransition {
  const next = nextTest(state, event)
  return next
    ? { kind: 'changed', state: next }
    : { kind: 'refused', reason: `${event.kind} does not apply to a test that is ${state.kind}` }
}

function nextTest(state: TestFailover, event: TestFailoverEvent): TestFailover | undefined {
  const { lastDrill } = state
  switch (event.kind) {
    case 'testBegan':
      return state.kind === 'none' ? { kind: 'preparing', run: event.run, lastDrill } : undefined
    case 'testOverlayReady':
      return state.kind === 'preparing' ? { ...state, run: { ...state.run, point: event.point } } : undefined
    case 'testRunning':
      return state.kind === 'preparing' ? { kind: 'running', run: state.run, lastDrill } : undefined
    case 'testCleanupBegan': {
      // A clean-up that failed is begun again, with the newer notes.
      if (state.kind === 'none') return undefined
      const { notes, outcome } = event
      return { kind: 'cleaningUp', run: state.run, notes, outcome, lastDrill }
    }
    case 'testCleaned':
      // A test counts as passed only when failover and clean-up both succeeded.
      return state.kind === 'cleaningUp'
        ? {
            kind: 'none',
            lastDrill: { atMs: event.atMs, ok: state.outcome === 'passed', notes: state.notes },
          }
        : undefined
    default:
      return assertNever(event)
  }
}

export const noTest: TestFailover = { kind: 'none', lastDrill: null }
