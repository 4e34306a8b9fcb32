import { describe, expect, it } from 'vitest'
import { diskId } from '#shared/ids.ts'
import type { DiskProof } from '#shared/messages/reports.ts'
import { type EngineState, engineReasons } from './engine-health.ts'
import { proofText, shortProof, worseProofs } from './proof.ts'

const hourMs = 3_600_000
const nowMs = 1_000 * hourMs
const proof = (changes: Partial<DiskProof> = {}): DiskProof => ({
  diskId: diskId.parse('disk0'),
  sizeBytes: 2 ** 30,
  percent: 62,
  provedAtMs: nowMs - 3 * hourMs,
  badBlocks: 0,
  ...changes,
})
const calm: EngineState = {
  nowMs,
  proof: [proof()],
  proofHours: 100,
  proofSinceMs: 0,
  firstDiskIds: ['disk0'],
  resync: null,
  forecast: null,
  slowedByMs: 0,
  mergeDebtBytes: 0,
  points: [{ name: '1.7', suspect: null, damaged: false }],
}
const told = (changes: Partial<EngineState>) =>
  engineReasons({ ...calm, ...changes }).map(({ severity, text, answer }) =>
    [severity, text, answer ? `${answer.command} ${answer.options}` : ''].join(' | '),
  )

describe('proof of a disk', () => {
  it('is the worse of both sides; a side that says nothing has proved nothing', () => {
    const later = proof({ provedAtMs: nowMs, percent: 10, badBlocks: 1 })
    expect(worseProofs([proof()], [later])).toEqual([proof({ percent: 10, badBlocks: 1 })])
    expect(worseProofs([proof()], [])).toEqual([proof({ percent: 0, provedAtMs: null })])
    expect(worseProofs([proof()], [proof({ provedAtMs: null })])[0]?.provedAtMs).toBeNull()
    expect(worseProofs([], [])).toEqual([])
  })
  it('in words', () => {
    expect(proofText(proof({ percent: 100 }), nowMs)).toBe('proved equal, 100 % of blocks, 3 h ago')
    expect(proofText(proof({ provedAtMs: null, percent: 62.9 }), nowMs)).toBe(
      '62 % of the present pass, never proved',
    )
    expect(proofText(proof({ badBlocks: 1 }), nowMs)).toContain('1 block not as they should be')
    expect(shortProof([proof(), proof({ provedAtMs: null, percent: 7 })], nowMs)).toBe('7 %')
    expect(shortProof([proof(), proof({ provedAtMs: nowMs - 5 })], nowMs)).toBe('3 h')
    expect(shortProof([proof({ badBlocks: 2 })], nowMs)).toBe('2 bad')
    expect(shortProof([], nowMs)).toBe('–')
  })
})

describe('what the engine says that a person must know', () => {
  it('nothing when all is well, and not before a proof is half as old again as the policy wants', () => {
    expect(told({})).toEqual([])
    expect(told({ proof: [proof({ provedAtMs: nowMs - 150 * hourMs })] })).toEqual([])
    expect(told({ proof: [proof({ provedAtMs: nowMs - 151 * hourMs })] })).toEqual([
      'warning | disk0: proved equal, 100 % of blocks, 6.3 days ago; 62 % of the present pass; every block is to be read again within 4.2 days | vm verify --full',
    ])
    expect(told({ proofHours: 0, proof: [] })).toEqual([])
  })
  it('a disk never proved counts from the begin of the protection', () => {
    const never = { proof: [proof({ provedAtMs: null })] }
    expect(told({ ...never, proofSinceMs: nowMs - 150 * hourMs })).toEqual([])
    expect(told({ ...never, proofSinceMs: nowMs - 151 * hourMs })).toHaveLength(1)
    expect(told({ proof: [] })).toHaveLength(1)
  })
  it('a disk added later counts from what was last proved beside it', () => {
    const added = proof({ diskId: diskId.parse('disk1'), provedAtMs: null })
    expect(told({ proof: [proof(), added] })).toEqual([])
    const old = proof({ provedAtMs: nowMs - 151 * hourMs })
    expect(told({ proof: [old, added] })).toHaveLength(2)
    expect(told({ proof: [proof(), added], firstDiskIds: ['disk0', 'disk1'] })).toHaveLength(1)
  })
  it('bad blocks and damaged points are critical where they cost the newest state', () => {
    expect(told({ proof: [proof({ badBlocks: 2 })] })[0]).toMatch(
      /^critical \| disk0: 2 blocks .*vm verify --full$/,
    )
    const sound = { name: '1.6', suspect: null, damaged: false }
    const damaged = { name: '1.7', suspect: null, damaged: true }
    expect(told({ points: [damaged, sound] })).toEqual([
      'critical | recovery point 1.7 damaged at the target; the newest sound one is 1.6 | vm verify --full',
    ])
    expect(told({ points: [sound, { ...damaged, name: '1.5' }] })[0]).toMatch(/^warning/)
    expect(told({ points: [damaged] })[0]).toContain('there is no sound one')
  })
  it('a suspect newest point is a warning; an older one is history', () => {
    const suspect = { name: '1.7', suspect: '90 % of blocks no longer compress', damaged: false }
    expect(told({ points: [suspect] })).toEqual([
      'warning | the newest recovery point 1.7 is suspect: 90 % of blocks no longer compress | point list --why',
    ])
    expect(told({ points: [{ name: '1.8', suspect: null, damaged: false }, suspect] })).toEqual([])
  })
  it('a resynchronization that waits, with its estimate and the command', () => {
    const estimate = { compareBytes: 20 * 2 ** 30, sendBytes: 310 * 2 ** 20, seconds: 240 }
    const resync = { cause: 'tracker-lost', waitsFor: 'approval', startsAtMs: null, estimate } as const
    expect(told({ resync })).toEqual([
      'warning | resynchronization (tracker-lost) waits for approval: compares 20 GiB, sends about 310 MiB, about 4 min; until then no new point is made | vm resync --now',
    ])
    expect(told({ resync: { ...resync, waitsFor: 'window', startsAtMs: nowMs + 3 * hourMs } })[0]).toContain(
      'waits for its window, in 3 h: compares',
    )
    expect(told({ resync: { ...resync, waitsFor: 'estimating' } })).toEqual([])
  })
  it('a breach in sight, and a pace that merges slow down', () => {
    const forecast = {
      churnBytesPerSecond: 14 * 2 ** 20,
      linkBytesPerSecond: 9 * 2 ** 20,
      breachAtMs: nowMs + 720_000,
    }
    expect(told({ forecast })).toEqual([
      'warning | RPO breach expected in 12 min (changes 14 MiB/s, link 9 MiB/s) | ',
    ])
    expect(told({ forecast: { ...forecast, breachAtMs: null } })).toEqual([])
    const lost = { ...forecast, linkBytesPerSecond: 0, breachAtMs: nowMs - 300_000 }
    expect(told({ forecast: lost })).toEqual([
      'warning | RPO breached for 5 min (changes 14 MiB/s, link down) | ',
    ])
    expect(told({ slowedByMs: 30_000, mergeDebtBytes: 4 * 2 ** 30 })).toEqual([
      'warning | slowed by merges: +30 s per cycle (4 GiB to merge) | ',
    ])
  })
})
