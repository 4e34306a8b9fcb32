import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { ReplicationPolicy } from '#shared/messages/policy.ts'
import { judgeAppConsistency } from '../../domain/app-consistency.ts'

/** Of the drivers there are: the folder driver freezes a VM, and its guest is not asked. */
const drivers = { quiesceGuests: false }

/** Throws `app-consistent-unsupported`, `app-consistent-interval` and `time-zone-unknown`. */
export function ensurePossible(policy: ReplicationPolicy): void {
  if (!isTimeZone(policy.timeZone))
    throw new HotsiteError('time-zone-unknown', `there is no time zone "${policy.timeZone}"`)
  const verdict = judgeAppConsistency(policy, drivers)
  if (!verdict.possible) throw new HotsiteError(verdict.code, verdict.reason)
}

/** Names of the IANA database, as the runtime knows them. Offsets like "+02:00" do not know summer time and are no names. */
function isTimeZone(name: string): boolean {
  if (!/^[A-Za-z]/.test(name)) return false
  try {
    new Intl.DateTimeFormat('en', { timeZone: name })
    return true
  } catch {
    return false
  }
}
