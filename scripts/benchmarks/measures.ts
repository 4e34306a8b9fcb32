/** What was set out to be reached, and whether it was. Pure. */
import type { Ratio, Result } from './summary.ts'
import type { Workload } from './workload.ts'

export interface Measure {
  readonly name: string
  readonly wanted: string
  /** null: what it needs was not measured. */
  readonly got: number | null
  readonly ok: boolean | null
}

export function atLeast(name: string, wanted: number, got: number | undefined): Measure {
  return measureOf(name, `>= ${wanted}`, got, (value) => value >= wanted)
}

export function atMost(name: string, wanted: number, got: number | undefined): Measure {
  return measureOf(name, `<= ${wanted}`, got, (value) => value <= wanted)
}

function measureOf(
  name: string,
  wanted: string,
  got: number | undefined,
  holds: (value: number) => boolean,
): Measure {
  return got === undefined ? { name, wanted, got: null, ok: null } : { name, wanted, got, ok: holds(got) }
}

/** Of a full copy and the deltas. */
export function speedMeasures(results: readonly Result[], ratios: readonly Ratio[]): readonly Measure[] {
  const ratio = (workload: Workload, against: string) =>
    ratios.find((candidate) => candidate.workload === workload && candidate.against === against)
  const encryptedPeers = ratios.filter(({ workload }) => workload === 'W1-encrypted')
  const fastest =
    encryptedPeers.length > 0 ? Math.min(...encryptedPeers.map((peer) => peer.timesAsFast)) : undefined
  // Sent as they are or compressed, whichever is faster here; below 0: they were compressed.
  const overhead = (workload: Workload) =>
    results.find((result) => result.workload === workload && result.tool === 'hotsite')?.wireOverRawPercent ??
    undefined
  return [
    atLeast('W1: times as fast as rsync over ssh', 2, ratio('W1-encrypted', 'rsync-ssh')?.timesAsFast),
    atLeast('W1: times as fast as nbdcopy over TLS', 0.7, ratio('W1-encrypted', 'nbdcopy-tls')?.timesAsFast),
    atLeast('W1: times as fast as the fastest peer that encrypts', 0.7, fastest),
    atLeast('W2: times as fast as rsync over ssh', 3, ratio('W2', 'rsync-ssh')?.timesAsFast),
    atMost('W2: CPU as a part of that of rsync over ssh', 0.5, ratio('W2', 'rsync-ssh')?.cpuShare),
    atLeast('W3: times as fast as the bare copy over TLS', 0.4, ratio('W3', 'bare')?.timesAsFast),
    atLeast('W3: times as fast as virtnbdbackup', 1.5, ratio('W3', 'virtnbdbackup')?.timesAsFast),
    atLeast('W3: times as fast as btrfs send -p', 1.5, ratio('W3', 'btrfs-send')?.timesAsFast),
    atMost('W1 without a throttle: % on the wire above the blocks as they are', 2, overhead('W1-encrypted')),
    atMost('W2 without a throttle: % on the wire above the blocks as they are', 2, overhead('W2')),
    atMost('W3 without a throttle: % on the wire above the blocks as they are', 2, overhead('W3')),
  ]
}
