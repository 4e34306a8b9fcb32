import { captureCrashPoints } from '#recovery-agent/capture/crash-points.ts'
import { replicaCrashPoints } from '#recovery-agent/replica/crash-points.ts'

export interface CrashTarget {
  readonly daemon: string
  readonly name: string
}

/** Points that only a failover, a removal or an adoption passes; the tests of the replica store kill at each of them. */
const notOnTheDataPath = /^replica\.(overlay|adopt|commit|remove|discard|begin-cleared)|^sync\.|^source:sync-/

/** Every named instant that replication of a protected VM passes again and again, with the daemon that passes it. */
export const crashTargets: readonly CrashTarget[] = [
  ...['source:sealed', 'source:point-acknowledged', 'source:base-released', ...captureCrashPoints].map(
    (name) => ({ daemon: 'agent-host-a1', name }),
  ),
  ...['target:before-seal', 'target:sealed-before-ack', ...replicaCrashPoints].map((name) => ({
    daemon: 'agent-host-b1',
    name,
  })),
  { daemon: 'coordinator', name: 'report-before-ack' },
].filter(({ name }) => !notOnTheDataPath.test(name))
