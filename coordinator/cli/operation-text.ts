/** What the coordinator calls an operation, and what is typed after "hotsite" for it. */
const commands: ReadonlyMap<string, string> = new Map([
  ['protect', 'vm protect'],
  ['unprotect', 'vm unprotect'],
  ['setPolicy', 'vm set-policy'],
  ['pause', 'vm pause'],
  ['resume', 'vm resume'],
  ['resync', 'vm resync'],
  ['verify', 'vm verify'],
  ['exportSeed', 'vm export-seed'],
  ['importSeed', 'vm import-seed'],
  ['testFailover', 'failover test'],
  ['cleanupTest', 'failover cleanup-test'],
  ['plannedFailover', 'failover planned'],
  ['unplannedFailover', 'failover unplanned'],
  ['changePoint', 'failover change-point'],
  ['commit', 'failover commit'],
  ['reverse', 'failover reverse'],
])

export function operationCommand(operation: string): string {
  return commands.get(operation) ?? operation
}
