import type { ReplicationPolicy } from '#shared/messages/policy.ts'
import { durationText, sizeText } from './text/units.ts'

/** "every 5 min, latest + 3 points 1 h apart, compressed" */
export function policyText(policy: ReplicationPolicy): string {
  const parts = [`every ${durationText(policy.copyFrequencySeconds * 1000)}`, retentionText(policy)]
  if (policy.appConsistentHours > 0) parts.push(`application-consistent every ${policy.appConsistentHours} h`)
  parts.push(policy.compression ? 'compressed' : 'not compressed')
  if (policy.throttleBytesPerSecond > 0) parts.push(`at most ${sizeText(policy.throttleBytesPerSecond)}/s`)
  return parts.join(', ')
}

function retentionText({ retentionPoints, retentionIntervalSeconds }: ReplicationPolicy): string {
  if (retentionPoints === 0) return 'latest point only'
  const apart = retentionIntervalSeconds > 0 ? ` ${durationText(retentionIntervalSeconds * 1000)} apart` : ''
  return `latest + ${retentionPoints} ${retentionPoints === 1 ? 'point' : 'points'}${apart}`
}
