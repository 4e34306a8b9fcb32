import { z } from 'zod'
import { replicationPolicy } from '#shared/messages/policy.ts'

const { shape } = replicationPolicy

/**
 * Some fields of a policy; the others stay as they are. Not `replicationPolicy.partial()`: zod applies defaults inside
 * optional fields, so a change of one field would reset all the others.
 */
export const policyPatch = z.strictObject({
  copyFrequencySeconds: shape.copyFrequencySeconds.removeDefault().exactOptional(),
  retentionPoints: shape.retentionPoints.removeDefault().exactOptional(),
  retentionIntervalSeconds: shape.retentionIntervalSeconds.removeDefault().exactOptional(),
  appConsistentHours: shape.appConsistentHours.removeDefault().exactOptional(),
  compression: shape.compression.removeDefault().exactOptional(),
  throttleBytesPerSecond: shape.throttleBytesPerSecond.removeDefault().exactOptional(),
  throttleWindows: shape.throttleWindows.removeDefault().exactOptional(),
  timeZone: shape.timeZone.removeDefault().exactOptional(),
  resync: shape.resync.removeDefault().exactOptional(),
  resyncWindow: shape.resyncWindow.removeDefault().exactOptional(),
  proofHours: shape.proofHours.removeDefault().exactOptional(),
})
export type PolicyPatch = z.infer<typeof policyPatch>
