/** The last line of `./scripts/demo --json`. Every field is measured in the run it reports. */
export interface TourResult {
  readonly ok: boolean
  /** The points of both planned failovers equal the source's disks, byte for byte. */
  readonly identical: boolean
  readonly comparedWith: 'qemu-img' | 'own reader'
  /** Every recovery point listed in the run was attested. */
  readonly attested: boolean
  readonly points: number
  readonly testFailover: boolean
  readonly plannedFailover: boolean
  readonly unplannedFailover: boolean
  readonly failback: boolean
  /** The old side, back after the disaster, was refused to start its VM. */
  readonly fenced: boolean
  /** Orders the guest had written before the planned failovers and did not find after them. */
  readonly lostTransactions: number
  /** Age of the newest point when the disaster struck. */
  readonly dataAgeSeconds: number
  readonly changedBytes: number
  readonly sentBytes: number
  readonly failoverSeconds: number
  readonly unplannedFailoverSeconds: number
  /** Disk content found in any file of the coordinator. */
  readonly coordinatorDiskBytes: number
  readonly seconds: number
}
