import { describe, expect, it } from 'vitest'
import { overlayId } from '#shared/ids.ts'
import {
  activeSide,
  type Protection,
  type ProtectionEvent,
  type ProtectionKind,
  protectionText,
  transition,
} from './protection.ts'

const landing = { overlayId: overlayId.parse('overlay-1'), point: { epoch: 1, seq: 7 }, capturedAtMs: 5 }
const states: readonly Protection[] = [
  { kind: 'enabling' },
  { kind: 'initialReplication' },
  { kind: 'protected' },
  { kind: 'paused' },
  { kind: 'resynchronizing', cause: 'diverged' },
  { kind: 'failingOver', failover: 'planned', step: 'shut-down', before: { kind: 'protected' } },
  { kind: 'failoverFailed', failover: 'unplanned', step: 'create-disks', reason: 'disk full' },
  { kind: 'failedOver', failover: 'planned', landing },
  { kind: 'committed', landing },
  { kind: 'reversing', landing },
  { kind: 'disabling', from: 'protected' },
]
const events: Readonly<Record<string, ProtectionEvent>> = {
  replicationStarted: { kind: 'replicationStarted' },
  ready: { kind: 'ready' },
  paused: { kind: 'paused' },
  resumed: { kind: 'resumed' },
  resyncBegan: { kind: 'resyncBegan', cause: 'tracker-lost' },
  resyncEnded: { kind: 'resyncEnded' },
  planned: { kind: 'failoverBegan', failover: 'planned' },
  unplanned: { kind: 'failoverBegan', failover: 'unplanned' },
  changePoint: { kind: 'failoverBegan', failover: 'changePoint' },
  failoverStep: { kind: 'failoverStep', step: 'start-vm' },
  failoverReturned: { kind: 'failoverReturned', resync: false },
  failoverFailed: { kind: 'failoverFailed', reason: 'no room' },
  failedOver: { kind: 'failedOver', landing },
  committed: { kind: 'committed' },
  reverseBegan: { kind: 'reverseBegan' },
  reverseReturned: { kind: 'reverseReturned' },
  disableBegan: { kind: 'disableBegan' },
}

/** Everything that is allowed; whatever is not named here is refused. */
const allowed: Readonly<Record<ProtectionKind, Readonly<Record<string, ProtectionKind>>>> = {
  enabling: { replicationStarted: 'initialReplication', disableBegan: 'disabling' },
  awaitingSeed: { replicationStarted: 'initialReplication', disableBegan: 'disabling' },
  initialReplication: { seedReturned: 'awaitingSeed', ready: 'protected', disableBegan: 'disabling' },
  protected: {
    paused: 'paused',
    resyncBegan: 'resynchronizing',
    planned: 'failingOver',
    unplanned: 'failingOver',
    disableBegan: 'disabling',
  },
  paused: {
    resumed: 'protected',
    resyncBegan: 'resynchronizing',
    unplanned: 'failingOver',
    disableBegan: 'disabling',
  },
  resynchronizing: {
    paused: 'paused',
    resyncBegan: 'resynchronizing',
    resyncEnded: 'protected',
    unplanned: 'failingOver',
    disableBegan: 'disabling',
  },
  failingOver: {
    failoverStep: 'failingOver',
    failoverReturned: 'protected',
    failoverFailed: 'failoverFailed',
    failedOver: 'failedOver',
  },
  failoverFailed: { unplanned: 'failingOver', disableBegan: 'disabling' },
  failedOver: { changePoint: 'failingOver', committed: 'committed' },
  committed: { reverseBegan: 'reversing', disableBegan: 'disabling' },
  reversing: { ready: 'protected', reverseReturned: 'committed' },
  disabling: { disableBegan: 'disabling' },
}

describe('every state meets every event', () => {
  for (const state of states)
    for (const [name, event] of Object.entries(events)) {
      const expected = allowed[state.kind][name]
      it(`${state.kind} + ${name} → ${expected ?? 'refused'}`, () => {
        const result = transition(state, event)
        expect(result.kind === 'changed' ? result.state.kind : undefined).toBe(expected)
        if (result.kind === 'refused') expect(result.reason).toContain(state.kind)
      })
    }
})

describe('what a transition carries', () => {
  const failing = (before: 'protected' | 'paused' | null): Protection => ({
    kind: 'failingOver',
    failover: 'unplanned',
    step: 'begin',
    before: before && { kind: before },
  })
  it('a failover that did not happen returns to what it was', () => {
    expect(transition(failing('paused'), { kind: 'failoverReturned', resync: false })).toEqual({
      kind: 'changed',
      state: { kind: 'paused' },
    })
  })
  it('after a raised epoch it returns to a resynchronization, because the deltas of the old epoch end', () => {
    expect(transition(failing('protected'), { kind: 'failoverReturned', resync: true })).toEqual({
      kind: 'changed',
      state: { kind: 'resynchronizing', cause: 'requested' },
    })
  })
  it('there is no way back to replication from a second attempt', () => {
    expect(transition(failing(null), { kind: 'failoverReturned', resync: false }).kind).toBe('refused')
  })
  it('a failed failover keeps the step and the reason', () => {
    expect(transition(failing('protected'), { kind: 'failoverFailed', reason: 'no room' })).toMatchObject({
      state: { kind: 'failoverFailed', step: 'begin', reason: 'no room' },
    })
  })
  it('removal after a commit remembers that the VM runs on the replica, also when asked twice', () => {
    const first = transition({ kind: 'committed', landing }, { kind: 'disableBegan' })
    const disabling: Protection = { kind: 'disabling', from: 'committed' }
    expect(first).toEqual({ kind: 'changed', state: disabling })
    expect(transition(disabling, { kind: 'disableBegan' })).toEqual({ kind: 'changed', state: disabling })
  })
  it('every state has a text and a side', () => {
    for (const state of states) expect(protectionText(state)).not.toBe('')
    const atTarget = states.filter((state) => activeSide(state) === 'target').map(({ kind }) => kind)
    expect(atTarget).toEqual(['failedOver', 'committed', 'reversing'])
    const changing: Protection = { kind: 'failingOver', failover: 'changePoint', step: 'x', before: null }
    expect(activeSide(changing)).toBe('target')
  })
})
