interface OperationText {
  /** As a sentence about a job names it. */
  readonly words: string
  /** What is typed after "hotsite". */
  readonly command: string
}

/** What the coordinator calls an operation, and what a person does. */
const operations: ReadonlyMap<string, OperationText> = new Map([
  ['protect', { words: 'protection', command: 'vm protect' }],
  ['unprotect', { words: 'removal of the protection', command: 'vm unprotect' }],
  ['setPolicy', { words: 'change of the policy', command: 'vm set-policy' }],
  ['pause', { words: 'pause', command: 'vm pause' }],
  ['resume', { words: 'resumption', command: 'vm resume' }],
  ['resync', { words: 'resynchronization', command: 'vm resync' }],
  ['testFailover', { words: 'test failover', command: 'failover test' }],
  ['cleanupTest', { words: 'clean-up of the test', command: 'failover cleanup-test' }],
  ['plannedFailover', { words: 'planned failover', command: 'failover planned' }],
  ['unplannedFailover', { words: 'unplanned failover', command: 'failover unplanned' }],
  ['changePoint', { words: 'change of the point', command: 'failover change-point' }],
  ['commit', { words: 'commit', command: 'failover commit' }],
  ['reverse', { words: 'reverse replication', command: 'failover reverse' }],
])

/** A newer coordinator may know more operations: those keep its name for them. */
export function operationWords(operation: string): string {
  return operations.get(operation)?.words ?? operation
}

export function operationCommand(operation: string): string {
  return operations.get(operation)?.command ?? operation
}
