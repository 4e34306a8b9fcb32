import { describe, expect, it } from 'vitest'
import { dataAge, type HealthInput, judgeHealth } from './health.ts'
import { endOfJob, jobHasEnded, jobMayBecome, retryAfterMs, stepHasEnded, stepMayBecome } from './jobs.ts'
import { describeMs } from './quantities.ts'
import { type StatusInput, verdictOf, whatNeedsAPerson } from './status.ts'

const healthy: HealthInput = {
  protection: { kind: 'protected' },
  copyFrequencySeconds: 300,
  dataAgeMs: 200_000,
  sourceConnected: true,
  targetConnected: true,
  errors: [],
  fencePending: false,
  bufferFill: 0.1,
  seedExported: false,
  engine: {
    nowMs: 0,
    proof: [],
    proofHours: 0,
    proofSinceMs: 0,
    firstDiskIds: [],
    resync: null,
    forecast: null,
    slowedByMs: 0,
    mergeDebtBytes: 0,
    points: [],
  },
}
const landing = { overlayId: 'o' as never, point: { epoch: 1, seq: 1 }, capturedAtMs: 1 }

describe('health', () => {
  const table: readonly [string, Partial<HealthInput>, string, string?][] = [
    ['all is well', {}, 'normal'],
    ['two cycles and a minute are still well', { dataAgeMs: 660_000 }, 'normal'],
    ['older data is a warning', { dataAgeMs: 660_001 }, 'warning', '11 min'],
    ['more than an hour is critical', { dataAgeMs: 3_600_001 }, 'critical'],
    ['a long frequency moves the hour', { dataAgeMs: 3_590_000, copyFrequencySeconds: 900 }, 'warning'],
    ['no point at all', { dataAgeMs: null }, 'critical', 'no recovery point'],
    ['first copy', { protection: { kind: 'initialReplication' }, dataAgeMs: null }, 'warning', 'first copy'],
    ['a seed to make', { protection: { kind: 'awaitingSeed' }, dataAgeMs: null }, 'warning', 'not complete'],
    [
      'a seed to carry',
      { protection: { kind: 'awaitingSeed' }, dataAgeMs: null, seedExported: true },
      'warning',
      'imported at the target',
    ],
    ['paused', { protection: { kind: 'paused' } }, 'warning', 'paused'],
    [
      'paused for long',
      { protection: { kind: 'paused' }, dataAgeMs: 4_000_000 },
      'critical',
      'newest recovery point',
    ],
    [
      'resynchronizing',
      { protection: { kind: 'resynchronizing', cause: 'diverged' } },
      'warning',
      'diverged',
    ],
    [
      'failed failover',
      { protection: { kind: 'failoverFailed', failover: 'unplanned', step: 's', reason: 'full' } },
      'critical',
      'full',
    ],
    ['committed', { protection: { kind: 'committed', landing }, dataAgeMs: null }, 'warning', 'unprotected'],
    ['source away', { sourceConnected: false }, 'warning', 'source agent'],
    [
      'source away after a failover is expected',
      { protection: { kind: 'failedOver', failover: 'unplanned', landing }, sourceConnected: false },
      'warning',
      'choose another point or commit',
    ],
    ['target away', { targetConnected: false }, 'warning', 'target agent'],
    [
      'error that passes',
      { errors: [{ where: 'h', message: 'full', retryable: true }] },
      'warning',
      'h: full',
    ],
    ['error that stays', { errors: [{ where: 'h', message: 'x', retryable: false }] }, 'critical'],
    ['fence pending', { fencePending: true }, 'warning', 'old source'],
    ['buffer nearly full', { bufferFill: 0.81 }, 'warning', '81 %'],
  ]
  for (const [name, changes, expected, text] of table)
    it(name, () => {
      const verdict = judgeHealth({ ...healthy, ...changes })
      expect(verdict.health).toBe(expected)
      if (text) expect(verdict.reasons[0]?.text).toContain(text)
      expect(verdict.reasons.length > 0).toBe(expected !== 'normal')
    })
  it('takes the skew of the source clock out of the data age, and is never negative', () => {
    expect(dataAge({ nowMs: 100_000, capturedAtMs: 130_000, sourceSkewMs: 60_000 })).toBe(30_000)
    expect(dataAge({ nowMs: 100_000, capturedAtMs: 130_000, sourceSkewMs: 0 })).toBe(0)
  })
  it('says durations as a person would', () => {
    expect([5_000, 119_000, 600_000, 9_000_000, 400_000_000].map(describeMs)).toEqual([
      '5 s',
      '119 s',
      '10 min',
      '2.5 h',
      '4.6 days',
    ])
  })
})

describe('jobs', () => {
  const jobStates = ['running', 'waiting', 'succeeded', 'failed', 'cancelled'] as const
  const stepStates = ['pending', 'running', 'succeeded', 'failed', 'skipped'] as const
  it('what has ended stays as it is', () => {
    for (const from of jobStates)
      for (const to of jobStates)
        expect(jobMayBecome(from, to)).toBe(from === 'running' || from === 'waiting')
    expect(jobStates.filter(jobHasEnded)).toEqual(['succeeded', 'failed', 'cancelled'])
  })
  it('a step runs before it succeeds', () => {
    const allowed = stepStates.flatMap((from) =>
      stepStates.flatMap((to) => (stepMayBecome(from, to) ? [`${from}>${to}`] : [])),
    )
    expect(allowed).toEqual([
      'pending>running',
      'pending>skipped',
      'running>running',
      'running>succeeded',
      'running>failed',
      'running>skipped',
    ])
    expect(stepStates.filter(stepHasEnded)).toEqual(['succeeded', 'failed', 'skipped'])
  })
  it('ends by what happened', () => {
    expect(endOfJob({ phase: 'forward', cancelRequested: true, failed: false })).toBe('succeeded')
    expect(endOfJob({ phase: 'undo', cancelRequested: true, failed: false })).toBe('cancelled')
    expect(endOfJob({ phase: 'undo', cancelRequested: true, failed: true })).toBe('failed')
    expect(endOfJob({ phase: 'undo', cancelRequested: false, failed: true })).toBe('failed')
  })
  it('tries again what may pass, a few times, ever slower', () => {
    expect([1, 2, 3, 4].map((attempt) => retryAfterMs({ retryable: true, attempt }))).toEqual([
      1_000,
      3_000,
      10_000,
      undefined,
    ])
    expect(retryAfterMs({ retryable: false, attempt: 1 })).toBeUndefined()
  })
})

describe('status', () => {
  const vm: StatusInput['vms'][number] = {
    name: 'shop',
    state: 'protected',
    health: 'normal',
    healthFindings: [],
    testFailover: { state: 'none' },
    lastDrill: { atMs: 1_000, ok: true },
  }
  const server: StatusInput['servers'][number] = {
    name: 'h',
    kind: 'agent',
    connected: true,
    clockSkewMs: 0,
    membershipIssuedAtMs: 0,
    membershipExpiresAtMs: 1e12,
    outdated: false,
  }
  const input = (changes: Partial<StatusInput>): StatusInput => ({
    nowMs: 10_000,
    drillDueMs: 100_000,
    clockSkewWarnMs: 5_000,
    vms: [vm],
    servers: [server],
    vaults: [{ name: 'main', certificateNotAfterMs: 1e12 }],
    waitingJobs: [],
    ...changes,
  })
  it('one verdict', () => {
    expect(verdictOf([], [])).toBe('nothing-protected')
    expect(verdictOf(['normal'], [])).toBe('safe')
    expect(verdictOf(['normal', 'warning'], [])).toBe('attention')
    expect(verdictOf(['warning', 'critical'], [])).toBe('danger')
    const twins = { severity: 'critical', text: 'two machines run as host-a1', command: null } as const
    expect(verdictOf(['normal'], [twins])).toBe('attention')
    expect(verdictOf(['normal'], [{ ...twins, severity: 'info' }])).toBe('safe')
  })
  it('nothing needs a person when all is well', () => {
    expect(whatNeedsAPerson(input({}))).toEqual([])
  })
  const commands = (changes: Partial<StatusInput>) =>
    whatNeedsAPerson(input(changes)).map(({ command }) => command)
  it('names the command that answers it, most urgent first', () => {
    const failed = {
      ...vm,
      name: 'db',
      state: 'failoverFailed',
      health: 'critical',
      healthFindings: [{ severity: 'critical', text: 'x', command: null }],
    } as const
    const over = {
      ...vm,
      name: 'web',
      state: 'failedOver',
      health: 'warning',
      healthFindings: [{ severity: 'warning', text: 'y', command: null }],
    } as const
    expect(commands({ vms: [over, failed, { ...vm, lastDrill: null }] })).toEqual([
      'hotsite failover unplanned db',
      'hotsite failover commit web',
      'hotsite failover test shop',
    ])
  })
  it('a test that was left, a drill that failed, a drill long ago', () => {
    expect(commands({ vms: [{ ...vm, testFailover: { state: 'running' } }] })).toEqual([
      'hotsite failover cleanup-test shop',
    ])
    expect(commands({ vms: [{ ...vm, lastDrill: { atMs: 1, ok: false } }] })).toEqual([
      'hotsite failover test shop',
    ])
    expect(commands({ nowMs: 200_000 })).toEqual(['hotsite failover test shop'])
  })
  it('servers: away, clock off, membership ending, vault key regenerated; and jobs that wait', () => {
    expect(commands({ servers: [{ ...server, connected: false }] })).toEqual(['hotsite server show h'])
    expect(whatNeedsAPerson(input({ servers: [{ ...server, clockSkewMs: -9_000 }] }))[0]?.text).toContain(
      '9 s',
    )
    const register = 'hotsite register --kind agent --config FILE --credentials FILE --certificate FILE'
    expect(commands({ servers: [{ ...server, outdated: true, connected: false }] })).toEqual([register])
    const waiting = { jobId: 'job-1', kind: 'pause', vmName: 'shop', waitingFor: 'agent h is away' }
    expect(commands({ waitingJobs: [waiting] })).toEqual(['hotsite job show job-1'])
  })
  it('a membership: from a month before its end, not before it can be renewed, critical once it ended', () => {
    const dayMs = 86_400_000
    const at = (leftMs: number, lifetimeMs = 300 * dayMs) =>
      whatNeedsAPerson(
        input({
          nowMs: 1e12,
          vms: [],
          vaults: [],
          servers: [
            {
              ...server,
              membershipIssuedAtMs: 1e12 + leftMs - lifetimeMs,
              membershipExpiresAtMs: 1e12 + leftMs,
            },
          ],
        }),
      )
    expect(at(31 * dayMs)).toEqual([])
    expect(at(29 * dayMs)[0]).toMatchObject({
      severity: 'warning',
      text: expect.stringContaining('ends in 29'),
      command: expect.stringContaining('hotsite register --kind agent'),
    })
    expect(at(29 * dayMs, 60 * dayMs)).toEqual([])
    expect(at(19 * dayMs, 60 * dayMs)).toHaveLength(1)
    expect(at(0)[0]).toMatchObject({ severity: 'critical', text: expect.stringContaining('has ended') })
  })
  it('a vault certificate: from a month before its end on, with what replaces it', () => {
    const at = (certificateNotAfterMs: number | null) =>
      whatNeedsAPerson(input({ nowMs: 1e11, vms: [], vaults: [{ name: 'main', certificateNotAfterMs }] }))
    expect(at(null)).toEqual([])
    expect(at(1e11 + 31 * 86_400_000)).toEqual([])
    expect(at(1e11 + 29 * 86_400_000)).toMatchObject([
      { severity: 'warning', command: 'hotsite vault set-certificate main --certificate FILE' },
    ])
    expect(at(1e11 - 1)[0]?.text).toContain('has ended')
  })
})
