import { describe, expect, it } from 'vitest'
import { judgeAppConsistency } from './app-consistency.ts'

const policy = {
  appConsistentHours: 4,
  copyFrequencySeconds: 300,
  retentionPoints: 5,
  retentionIntervalSeconds: 3_600,
} as const
const able = { quiesceGuests: true }
const codeOf = (changes: Partial<Parameters<typeof judgeAppConsistency>[0]>) => {
  const verdict = judgeAppConsistency({ ...policy, ...changes }, able)
  return verdict.possible ? 'possible' : verdict.code
}

describe('application-consistent points', () => {
  it('are refused where no driver can make one, and never is always possible', () => {
    const unable = { quiesceGuests: false }
    expect(judgeAppConsistency(policy, unable)).toMatchObject({ code: 'app-consistent-unsupported' })
    expect(judgeAppConsistency({ ...policy, appConsistentHours: 0 }, unable)).toEqual({ possible: true })
  })
  it('come more often than retention reaches back', () => {
    expect(codeOf({})).toBe('possible')
    expect(codeOf({ appConsistentHours: 5 })).toBe('app-consistent-interval')
    expect(codeOf({ retentionPoints: 0, appConsistentHours: 1 })).toBe('app-consistent-interval')
    expect(codeOf({ retentionPoints: 0, appConsistentHours: 0 })).toBe('possible')
  })
  it('without an interval every copy is a point', () => {
    const every = { retentionIntervalSeconds: 0, copyFrequencySeconds: 900, appConsistentHours: 1 } as const
    expect(codeOf({ ...every, retentionPoints: 5 })).toBe('possible')
    expect(codeOf({ ...every, retentionPoints: 4 })).toBe('app-consistent-interval')
  })
})
