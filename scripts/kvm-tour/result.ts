/** The last line of `./scripts/demo --kvm --json`. Every field is measured in the run it reports. */
export interface KvmTourResult {
  readonly ok: boolean
  /** Both guests came up at the other site, seen by the heartbeat of their agents. */
  readonly guestBooted: boolean
  /** What the guest found on its two disks is a state it was in: order n on the first before it went to the second. */
  readonly orderHeld: boolean
  /** e2fsck on every disk at the point it was started from. */
  readonly fsClean: boolean
  /** SQLite's own check, in the guest that came up and on the point's disk. */
  readonly databaseClean: boolean
  /** The console of the test failover, a PNG. */
  readonly screenshot: string
  /** Age of the newest point when the disaster struck. */
  readonly rpoSeconds: number
  /** From the word to the heartbeat, of the slower guest. */
  readonly rtoSeconds: number
  /** The longest that file systems were held for an application-consistent point. */
  readonly freezeMillisMax: number
  /** The longest that the guest waited for one order to be on both disks, measured inside it. */
  readonly guestStallMillisMax: number
  readonly seconds: number
}
