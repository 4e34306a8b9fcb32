import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { Operation } from '../../domain/allowed-operations.ts'
import type { JobKind } from '../step.ts'
import { changePoint } from './change-point.ts'
import { commit } from './commit.ts'
import { plannedFailover } from './planned-failover.ts'
import { protect } from './protect.ts'
import { pause, resume, resync, setPolicy } from './replication-control.ts'
import { reverse } from './reverse.ts'
import { exportSeed, importSeed } from './seed.ts'
import { cleanupTest, testFailover } from './test-failover.ts'
import { unplannedFailover } from './unplanned-failover.ts'
import { unprotect } from './unprotect.ts'
import { verify } from './verify.ts'

/** A new operation does not compile until it has its steps. */
export const jobKinds: Readonly<Record<Operation, JobKind>> = {
  protect,
  unprotect,
  setPolicy,
  pause,
  resume,
  resync,
  verify,
  exportSeed,
  importSeed,
  testFailover,
  cleanupTest,
  plannedFailover,
  unplannedFailover,
  changePoint,
  commit,
  reverse,
}

export function jobKindOf(kind: string): JobKind {
  const known = (jobKinds as Readonly<Record<string, JobKind>>)[kind]
  if (!known) throw new HotsiteError('data-version-unknown', `job kind ${kind} is not known to this version`)
  return known
}
