/** The recovery points of a replica as they are reported. */
import { defined } from '#shared/assert.ts'
import type { VmId } from '#shared/ids.ts'
import type { PointReport } from '#shared/messages/reports.ts'
import type { ReplicaContext } from '../context.ts'
import { retentionDecisions } from '../merging/prune.ts'
import { overlaysOn } from '../overlays.ts'
import type { OverlayRow } from './catalog.ts'
import type { ChainPoint } from './chain.ts'
import { pointMarks } from './point-marks.ts'

export function pointReports(context: ReplicaContext, vmId: VmId): readonly PointReport[] {
  const { catalog } = context
  const replica = catalog.replica(vmId)
  if (!replica) return []
  const chain = catalog.chain(vmId)
  const marks = pointMarks(context, vmId, chain)
  const { overlays, suspicions, damaged } = marks
  const decisions = new Map(
    retentionDecisions(context, replica, chain, marks).map((decision) => [decision.seq, decision]),
  )
  return (
    chain
      .filter(({ state }) => state === 'point')
      // Of a failover that is final only what its overlay stands on is promised; the rest waits to be merged into it.
      .filter(({ seq }) => replica.state !== 'committed' || decisions.get(seq)?.keep)
      .map((point) => ({
        ...reportOf(point, overlaysOn(overlays, point)),
        suspect: suspicions.get(point.seq) ?? null,
        damaged: damaged.has(point.seq),
        keptBecause: decisions.get(point.seq)?.reason ?? 'newest',
      }))
  )
}

function reportOf(point: ChainPoint, overlays: readonly OverlayRow[]): PointReport {
  const sum = (of: 'changedBytes' | 'storedBytes') =>
    point.disks.reduce((total, disk) => total + defined(disk[of], of), 0)
  return {
    epoch: point.epoch,
    seq: point.seq,
    capturedAtMs: point.capturedAtMs,
    completedAtMs: point.completedAtMs,
    consistency: point.consistency,
    // Only a point whose roots were re-derived here ever becomes one (I3).
    attested: true,
    pinned: point.pinned,
    overlays: overlays.map(({ overlayId }) => overlayId),
    changedBytes: sum('changedBytes'),
    storedBytes: sum('storedBytes'),
    suspect: null,
    damaged: false,
    keptBecause: 'newest',
    roots: point.disks.map(({ diskId, root }) => ({ diskId, rootHex: root.toString('hex') })),
  }
}
