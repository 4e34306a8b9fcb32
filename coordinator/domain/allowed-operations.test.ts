import { describe, expect, it } from 'vitest'
import { fabricVmId, overlayId } from '#shared/ids.ts'
import { admit } from './admit.ts'
import {
  allowedOperations,
  judgeOperations,
  type OperationVerdict,
  type VmOperation,
} from './allowed-operations.ts'
import type { Protection } from './protection.ts'
import { noTest, type TestFailover } from './test-failover.ts'

const landing = { overlayId: overlayId.parse('o'), point: { epoch: 1, seq: 1 }, capturedAtMs: 1 }
const running: TestFailover = {
  kind: 'running',
  run: {
    overlayId: landing.overlayId,
    fabricVmId: fabricVmId.parse('t'),
    startedAtMs: 1,
    point: null,
    network: null,
  },
  lastDrill: null,
}
const failing: Protection = { kind: 'failingOver', failover: 'planned', step: 's', before: null }
const failed: Protection = { kind: 'failoverFailed', failover: 'unplanned', step: 's', reason: 'r' }

const table: readonly {
  readonly name: string
  readonly protection: Protection
  readonly test?: TestFailover
  readonly points?: number
  readonly allowed: readonly VmOperation[]
}[] = [
  { name: 'enabling', protection: { kind: 'enabling' }, allowed: ['unprotect'] },
  {
    name: 'waiting for a seed',
    protection: { kind: 'awaitingSeed' },
    points: 0,
    allowed: ['unprotect', 'exportSeed', 'importSeed'],
  },
  { name: 'first copy', protection: { kind: 'initialReplication' }, allowed: ['unprotect'] },
  {
    name: 'protected',
    protection: { kind: 'protected' },
    allowed: [
      'unprotect',
      'setPolicy',
      'pause',
      'resync',
      'verify',
      'testFailover',
      'plannedFailover',
      'unplannedFailover',
    ],
  },
  {
    name: 'protected without a point',
    protection: { kind: 'protected' },
    points: 0,
    allowed: ['unprotect', 'setPolicy', 'pause', 'resync'],
  },
  {
    name: 'protected, test running: replication may be steered, and a disaster does not wait',
    protection: { kind: 'protected' },
    test: running,
    allowed: ['setPolicy', 'pause', 'resync', 'verify', 'cleanupTest', 'unplannedFailover'],
  },
  {
    name: 'paused',
    protection: { kind: 'paused' },
    allowed: ['unprotect', 'setPolicy', 'resume', 'verify', 'testFailover', 'unplannedFailover'],
  },
  {
    name: 'resynchronizing: only the unplanned failover is left',
    protection: { kind: 'resynchronizing', cause: 'diverged' },
    allowed: ['unprotect', 'setPolicy', 'pause', 'resync', 'unplannedFailover'],
  },
  { name: 'failing over', protection: failing, allowed: [] },
  { name: 'failover failed', protection: failed, allowed: ['unprotect', 'unplannedFailover'] },
  {
    name: 'failed over',
    protection: { kind: 'failedOver', failover: 'planned', landing },
    allowed: ['changePoint', 'commit'],
  },
  {
    name: 'failed over, one point',
    protection: { kind: 'failedOver', failover: 'planned', landing },
    points: 1,
    allowed: ['commit'],
  },
  {
    name: 'failed over with a test left',
    protection: { kind: 'failedOver', failover: 'planned', landing },
    test: running,
    allowed: ['cleanupTest', 'changePoint'],
  },
  { name: 'committed', protection: { kind: 'committed', landing }, allowed: ['unprotect', 'reverse'] },
  { name: 'reversing', protection: { kind: 'reversing', landing }, allowed: [] },
  { name: 'disabling', protection: { kind: 'disabling', from: 'protected' }, allowed: ['unprotect'] },
]

describe('allowed operations', () => {
  for (const { name, protection, test = noTest, points = 3, allowed } of table)
    it(name, () => {
      const input = { protection, test, pointCount: points }
      expect(allowedOperations(input)).toEqual(allowed)
      for (const verdict of Object.values(judgeOperations(input)))
        if (!verdict.allowed) expect(verdict.reason.length).toBeGreaterThan(5)
    })
})

describe('admit', () => {
  const active = { jobId: 'job-1', kind: 'pause', params: '{}' }
  const yes = { allowed: true } as const
  it('accepts once', () => {
    expect(admit({ operation: 'pause', params: '{}', active: null, verdict: yes })).toEqual({
      kind: 'accepted',
    })
  })
  it('recognises the same request while it runs, whatever the state now says', () => {
    const verdict = { allowed: false, reason: 'pausing' } as const
    expect(admit({ operation: 'pause', params: '{}', active, verdict })).toEqual({
      kind: 'recognised',
      jobId: 'job-1',
    })
  })
  it('denies another operation, or the same with other words, and names the job', () => {
    for (const other of [
      { operation: 'resync', params: '{}' },
      { operation: 'pause', params: '{"x":1}' },
    ] as const)
      expect(admit({ ...other, active, verdict: yes })).toMatchObject({
        kind: 'denied',
        code: 'vm-busy',
        reason: expect.stringContaining('job-1') as string,
      })
  })
  it('denies what the state does not permit, with its reason', () => {
    const verdict = { allowed: false, reason: 'the VM is paused' } as const
    expect(admit({ operation: 'pause', params: '{}', active: null, verdict })).toEqual({
      kind: 'denied',
      code: 'operation-not-allowed',
      reason: 'the VM is paused',
    })
  })
  it('a verification makes way for an unplanned failover, if that is allowed, and for nothing else', () => {
    const verifying = { jobId: 'job-2', kind: 'verify', params: '{}' }
    const ask = (operation: 'unplannedFailover' | 'plannedFailover', verdict: OperationVerdict) =>
      admit({ operation, params: '{}', active: verifying, verdict })
    expect(ask('unplannedFailover', yes)).toEqual({ kind: 'accepted', insteadOf: 'job-2' })
    expect(ask('plannedFailover', yes)).toMatchObject({ kind: 'denied', code: 'vm-busy' })
    expect(ask('unplannedFailover', { allowed: false, reason: 'no point' })).toMatchObject({ kind: 'denied' })
  })
})
