import type { Operation } from './allowed-operations.ts'

const words: Readonly<Record<Operation, string>> = {
  protect: 'protection',
  unprotect: 'removal of the protection',
  setPolicy: 'change of the policy',
  pause: 'pause',
  resume: 'resumption',
  resync: 'resynchronization',
  verify: 'verification',
  exportSeed: 'export of the seed',
  importSeed: 'import of the seed',
  testFailover: 'test failover',
  cleanupTest: 'clean-up of the test failover',
  plannedFailover: 'planned failover',
  unplannedFailover: 'unplanned failover',
  changePoint: 'change of the point',
  commit: 'commit',
  reverse: 'reverse replication',
}

/** An operation as a sentence names it. A newer coordinator may know more: those keep their name. */
export function operationWords(operation: string): string {
  return Object.hasOwn(words, operation) ? words[operation as Operation] : operation
}
