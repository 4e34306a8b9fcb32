import type { ReplicationPolicy } from '#shared/messages/policy.ts'

export type AppConsistencyVerdict =
  | { readonly possible: true }
  | {
      readonly possible: false
      readonly code: 'app-consistent-unsupported' | 'app-consistent-interval'
      readonly reason: string
    }

/** Whether such points can be made at all, and then whether one of them is always among those kept (DESIGN §6). */
export function judgeAppConsistency(
  policy: Pick<
    ReplicationPolicy,
    'appConsistentHours' | 'copyFrequencySeconds' | 'retentionPoints' | 'retentionIntervalSeconds'
  >,
  drivers: { readonly quiesceGuests: boolean },
): AppConsistencyVerdict {
  const {
    appConsistentHours: hours,
    copyFrequencySeconds,
    retentionPoints,
    retentionIntervalSeconds,
  } = policy
  if (hours === 0) return { possible: true }
  if (!drivers.quiesceGuests) {
    const reason = `application-consistent points every ${hours} h were asked for, and the hosts of the source cannot make one`
    return { possible: false, code: 'app-consistent-unsupported', reason }
  }
  // Two kept points lie at least a copy apart, whatever the interval says.
  const keptSeconds = retentionPoints * Math.max(retentionIntervalSeconds, copyFrequencySeconds)
  if (hours * 3_600 < keptSeconds) return { possible: true }
  const reason = `an application-consistent point every ${hours} h is not within what retention keeps, ${(keptSeconds / 3_600).toFixed(1)} h`
  return { possible: false, code: 'app-consistent-interval', reason }
}
