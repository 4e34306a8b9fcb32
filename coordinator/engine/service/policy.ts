import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { ReplicationPolicy } from '#shared/messages/policy.ts'
import type { InventoryReport } from '#shared/messages/reports.ts'
import { judgeAppConsistency } from '../../domain/app-consistency.ts'

/**
 * Of a VM or cloud of a source with this inventory; undefined: it has none, and nothing is known of it.
 * Throws `app-consistent-unsupported`, `app-consistent-interval` and `time-zone-unknown`.
 */
export function ensurePossible(policy: ReplicationPolicy, source: InventoryReport | undefined): void {
  if (!isTimeZone(policy.timeZone))
    throw new HotsiteError('time-zone-unknown', `there is no time zone "${policy.timeZone}"`)
  const verdict = judgeAppConsistency(policy, { quiesceGuests: source?.quiescesGuests ?? false })
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
