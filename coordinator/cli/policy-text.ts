import type { ReplicationPolicy } from '#shared/messages/policy.ts'
import { durationText, sizeText } from './text/units.ts'
import { weeklyWindowText } from './text/weekly-window.ts'

/** "every 5 min, latest + 3 points 1 h apart, compressed, mon-fri 08:00-18:00 at most 5 MiB/s, proved every 7 d, times of UTC" */
export function policyText(policy: ReplicationPolicy): string {
  const parts = [`every ${durationText(policy.copyFrequencySeconds * 1000)}`, retentionText(policy)]
  if (policy.appConsistentHours > 0) parts.push(`application-consistent every ${policy.appConsistentHours} h`)
  parts.push(policy.compression ? 'compressed' : 'not compressed')
  parts.push(...throttleTexts(policy), ...resyncTexts(policy))
  parts.push(
    policy.proofHours > 0
      ? `proved every ${durationText(policy.proofHours * 3_600_000)}`
      : 'proved when asked',
  )
  if (policy.throttleWindows.length > 0 || policy.resync === 'window')
    parts.push(`times of ${policy.timeZone}`)
  return parts.join(', ')
}

function throttleTexts({ throttleBytesPerSecond, throttleWindows }: ReplicationPolicy): string[] {
  const usual = throttleBytesPerSecond > 0 ? [`at most ${sizeText(throttleBytesPerSecond)}/s`] : []
  return [
    ...usual,
    ...throttleWindows.map((window) => {
      const { bytesPerSecond } = window
      const rate = bytesPerSecond > 0 ? `at most ${sizeText(bytesPerSecond)}/s` : 'no limit'
      return `${weeklyWindowText(window)} ${rate}`
    }),
  ]
}

const nightly = 'daily 18:00-06:00'

function resyncTexts({ resync, resyncWindow }: ReplicationPolicy): string[] {
  switch (resync) {
    case 'now':
      return []
    case 'window':
      return [`resynchronized ${resyncWindow ? weeklyWindowText(resyncWindow) : nightly}`]
    case 'ask':
      return ['resynchronized when approved']
  }
}

function retentionText({ retentionPoints, retentionIntervalSeconds }: ReplicationPolicy): string {
  if (retentionPoints === 0) return 'latest point only'
  const apart = retentionIntervalSeconds > 0 ? ` ${durationText(retentionIntervalSeconds * 1000)} apart` : ''
  return `latest + ${retentionPoints} ${retentionPoints === 1 ? 'point' : 'points'}${apart}`
}
