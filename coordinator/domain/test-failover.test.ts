import { describe, expect, it } from 'vitest'
import { fabricVmId, overlayId } from '#shared/ids.ts'
import {
  noTest,
  type TestFailover,
  type TestFailoverEvent,
  type TestRun,
  transitionTest,
} from './test-failover.ts'

const run: TestRun = {
  overlayId: overlayId.parse('o1'),
  fabricVmId: fabricVmId.parse('t1'),
  startedAtMs: 1,
  point: null,
  network: null,
}
const point = { epoch: 1, seq: 4 }
const lastDrill = null
const states: readonly TestFailover[] = [
  noTest,
  { kind: 'preparing', run, lastDrill },
  { kind: 'running', run, lastDrill },
  { kind: 'cleaningUp', run, notes: 'n', outcome: 'passed', lastDrill },
]
const events: readonly TestFailoverEvent[] = [
  { kind: 'testBegan', run },
  { kind: 'testOverlayReady', point },
  { kind: 'testRunning' },
  { kind: 'testCleanupBegan', notes: 'later', outcome: 'failed' },
  { kind: 'testCleaned', atMs: 9 },
]
const allowed: Readonly<Record<TestFailover['kind'], Readonly<Record<string, TestFailover['kind']>>>> = {
  none: { testBegan: 'preparing' },
  preparing: { testOverlayReady: 'preparing', testRunning: 'running', testCleanupBegan: 'cleaningUp' },
  running: { testCleanupBegan: 'cleaningUp' },
  cleaningUp: { testCleanupBegan: 'cleaningUp', testCleaned: 'none' },
}

describe('every state of a test meets every event', () => {
  for (const state of states)
    for (const event of events) {
      const expected = allowed[state.kind][event.kind]
      it(`${state.kind} + ${event.kind} → ${expected ?? 'refused'}`, () => {
        const result = transitionTest(state, event)
        expect(result.kind === 'changed' ? result.state.kind : undefined).toBe(expected)
      })
    }
})

describe('what stays of a test', () => {
  const drillAfter = (outcome: 'passed' | 'failed') => {
    let state: TestFailover = { kind: 'running', run, lastDrill }
    for (const event of [
      { kind: 'testCleanupBegan', notes: 'it booted', outcome },
      { kind: 'testCleaned', atMs: 42 },
    ] as const) {
      const result = transitionTest(state, event)
      if (result.kind === 'changed') state = result.state
    }
    return state
  }
  it('passed counts only with its clean-up', () => {
    expect(drillAfter('passed')).toEqual({
      kind: 'none',
      lastDrill: { atMs: 42, ok: true, notes: 'it booted' },
    })
    expect(drillAfter('failed')).toMatchObject({ lastDrill: { ok: false } })
  })
})
