import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { ReplicationPolicy } from '#shared/messages/policy.ts'
import { judgeAppConsistency } from '../../domain/app-consistency.ts'

/** Of the drivers there are: the folder driver freezes a VM, and its guest is not asked. */
const drivers = { quiesceGuests: false }

/** Throws `app-consistent-unsupported` and `app-consistent-interval`. */
export function ensurePossible(policy: ReplicationPolicy): void {
  const verdict = judgeAppConsistency(policy, drivers)
  if (!verdict.possible) throw new HotsiteError(verdict.code, verdict.reason)
}
