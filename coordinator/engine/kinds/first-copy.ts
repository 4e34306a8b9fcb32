import type { ReplicationReport } from '#shared/messages/reports.ts'
import type { ProtectedVm, Side } from '../../store/documents.ts'
import { pointName, pointsAt, replicationAt } from '../peers.ts'
import type { StepContext, StepOutcome } from '../step.ts'

/** Waits until the source says that it replicates and the target shows a point of this epoch, attested (I3). */
export async function awaitFirstPoint(
  { engine, job }: StepContext,
  vm: ProtectedVm,
  { from, to }: { from: Side; to: Side },
): Promise<StepOutcome> {
  const report = await replicationAt(engine.db, vm, from)
  const points = await pointsAt(engine.db, vm, to)
  const current = report?.epoch === vm.epoch ? report : undefined
  const point = points.find(({ epoch, attested }) => epoch === vm.epoch && attested)
  if (current?.activity === 'replicating' && point)
    return { kind: 'done', observed: { point: pointName(point), capturedAtMs: point.capturedAtMs } }
  for (const [side, role] of [
    [from, 'source'],
    [to, 'target'],
  ] as const)
    if (!engine.connections.isConnected(job.vaultId, side.agentId))
      return { kind: 'waiting', reason: `the ${role} agent on ${side.host} is not connected` }
  // The agent tries again by itself, whatever the error; the person sees it and may cancel.
  if (current?.error) return { kind: 'waiting', reason: `${from.host}: ${current.error.message}` }
  return { kind: 'pending', observed: progressOf(current) }
}

/** What a person wants to know of a copy that lasts: how far, how long, or when it begins. */
function progressOf(report: ReplicationReport | undefined): Readonly<Record<string, unknown>> {
  const startsAtMs = report?.resync?.startsAtMs
  if (report?.resync) return { waitsFor: report.resync.waitsFor, ...(startsAtMs ? { startsAtMs } : {}) }
  if (!report?.progress) return { activity: report?.activity ?? 'starting' }
  const { doneBytes, totalBytes, secondsLeft } = report.progress
  return { doneBytes, totalBytes, ...(secondsLeft === null ? {} : { secondsLeft }) }
}
