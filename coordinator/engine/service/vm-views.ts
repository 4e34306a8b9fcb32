/** A VM as a person sees it: where it runs, how old its data is, what may be done with it. */
import { errorFromDocument } from '#shared/errors/hotsite-error.ts'
import type { PointReport } from '#shared/messages/reports.ts'
import type { PointView, VmView } from '../../admin/views.ts'
import { allowedOperations, plainOperations } from '../../domain/allowed-operations.ts'
import type { EngineState } from '../../domain/engine-health.ts'
import { dataAge, type HealthReason, judgeHealth } from '../../domain/health.ts'
import { worseProofs } from '../../domain/proof.ts'
import { activeSide, isReplicating, protectionText } from '../../domain/protection.ts'
import type { ProtectedVm, Side } from '../../store/documents.ts'
import { type JobRow, listActiveJobs } from '../../store/jobs.ts'
import { listProtectedVms } from '../../store/protected-vms.ts'
import { listReports } from '../../store/reports.ts'
import { listServers } from '../../store/servers.ts'
import type { Engine } from '../engine.ts'
import { type FoundVm, listFabricVms } from '../fabric-view.ts'
import { pointName } from '../peers.ts'
import { listPlainVms } from './resolve.ts'

/** Everything the views are made from, read once for all VMs. */
export interface Snapshot {
  readonly engine: Engine
  readonly nowMs: number
  readonly jobs: readonly JobRow[]
  readonly fabric: readonly FoundVm[]
  readonly replicas: Awaited<ReturnType<typeof listReports<'replica'>>>
  readonly replications: Awaited<ReturnType<typeof listReports<'replication'>>>
  readonly agents: Awaited<ReturnType<typeof listReports<'agent'>>>
  readonly servers: Awaited<ReturnType<typeof listServers>>
}

export async function takeSnapshot(engine: Engine): Promise<Snapshot> {
  const { db, clock } = engine
  return {
    engine,
    nowMs: clock.now(),
    jobs: await listActiveJobs(db),
    fabric: await listFabricVms(db),
    replicas: await listReports(db, 'replica'),
    replications: await listReports(db, 'replication'),
    agents: await listReports(db, 'agent'),
    servers: await listServers(db),
  }
}

export async function allVmViews(engine: Engine): Promise<readonly VmView[]> {
  const snapshot = await takeSnapshot(engine)
  const stored = await listProtectedVms(engine.db)
  const plain = await listPlainVms(engine.db)
  return [
    ...stored.map(({ vm }) => protectedVmView(snapshot, vm)),
    ...plain.map((found) => plainVmView(snapshot, found)),
  ].sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0))
}

const sameAgent = (vm: ProtectedVm, side: Side) => (row: { vaultId: string; serverId: string }) =>
  row.vaultId === vm.vaultId && row.serverId === side.agentId

export function replicaOf({ replicas }: Snapshot, vm: ProtectedVm) {
  const mine = sameAgent(vm, vm.target)
  return replicas.find((row) => mine(row) && row.report.vmId === vm.vmId)?.report
}

function replicationOf({ replications }: Snapshot, vm: ProtectedVm) {
  const mine = sameAgent(vm, vm.protection.kind === 'reversing' ? vm.target : vm.source)
  const report = replications.find((row) => mine(row) && row.report.vmId === vm.vmId)?.report
  return report?.epoch === vm.epoch || vm.protection.kind === 'failingOver' ? report : undefined
}

/** null where it says nothing: the VM runs at the target, or there is no point. */
function dataAgeOf(snapshot: Snapshot, vm: ProtectedVm): number | null {
  if (activeSide(vm.protection) === 'target') return null
  const points = replicaOf(snapshot, vm)?.points ?? []
  if (points.length === 0) return null
  const newest = points.reduce((a, b) =>
    a.epoch > b.epoch || (a.epoch === b.epoch && a.seq > b.seq) ? a : b,
  )
  return ageOf(snapshot, vm, newest)
}

function ageOf(snapshot: Snapshot, vm: ProtectedVm, point: PointReport): number {
  const skewOf = (side: Side) => snapshot.servers.find(sameAgent(vm, side))?.clockSkewMs ?? 0
  return dataAge({
    nowMs: snapshot.nowMs,
    capturedAtMs: point.capturedAtMs,
    sourceSkewMs: skewOf(vm.source),
    arrival: { completedAtMs: point.completedAtMs, targetSkewMs: skewOf(vm.target) },
  })
}

function healthOf(snapshot: Snapshot, vm: ProtectedVm) {
  const { engine } = snapshot
  const replica = replicaOf(snapshot, vm)
  const replication = replicationOf(snapshot, vm)
  const agent = snapshot.agents.find(sameAgent(vm, vm.source))?.report
  const errors = [
    ...(replication?.error
      ? [{ where: vm.source.host, message: withAction(replication.error), retryable: true }]
      : []),
    ...(replica?.error
      ? [{ where: vm.target.host, message: withAction(replica.error), retryable: true }]
      : []),
    // In every other state the fence is what was asked for.
    ...(replication?.activity === 'fenced' && isReplicating(vm.protection)
      ? [{ where: vm.source.host, message: 'the source agent is fenced', retryable: false }]
      : []),
  ]
  return judgeHealth({
    protection: vm.protection,
    copyFrequencySeconds: vm.policy.copyFrequencySeconds,
    dataAgeMs: dataAgeOf(snapshot, vm),
    sourceConnected: engine.connections.isConnected(vm.vaultId, vm.source.agentId),
    targetConnected: engine.connections.isConnected(vm.vaultId, vm.target.agentId),
    errors,
    fencePending: vm.sourceFence !== null && !(vm.sourceFence.vmFenced && vm.sourceFence.replicationFenced),
    bufferFill: agent && agent.bufferMaxBytes > 0 ? agent.bufferBytes / agent.bufferMaxBytes : null,
    seedExported: vm.seed !== null,
    engine: engineStateOf(snapshot, vm),
  })
}

function engineStateOf(snapshot: Snapshot, vm: ProtectedVm): EngineState {
  const replication = replicationOf(snapshot, vm)
  const replica = replicaOf(snapshot, vm)
  return {
    nowMs: snapshot.nowMs,
    proof: worseProofs(replication?.proof ?? [], replica?.proof ?? []),
    proofHours: vm.policy.proofHours,
    proofSinceMs: vm.protectedAtMs,
    firstDiskIds: vm.description.disks.map(({ diskId }) => diskId),
    resync: replication?.resync ?? null,
    forecast: replication?.forecast ?? null,
    slowedByMs: replication?.slowedByMs ?? 0,
    mergeDebtBytes: replica?.mergeDebtBytes ?? 0,
    points: newestFirst(replica?.points ?? []).map((point) => ({ ...point, name: pointName(point) })),
  }
}

const newestFirst = (points: readonly PointReport[]): readonly PointReport[] =>
  points.toSorted((a, b) => b.epoch - a.epoch || b.seq - a.seq)

/** "hotsite vm verify shop --full" */
function commandOf(name: string, { answer }: HealthReason): string | null {
  return answer ? `hotsite ${answer.command} ${name} ${answer.options}`.trimEnd() : null
}

/** What happened and what to do: the screen that shows a fault is where somebody looks for the way out. */
function withAction({ code, message }: { readonly code: string; readonly message: string }): string {
  const { code: known, hint } = errorFromDocument({ code, message })
  return known === 'internal' ? message : `${message}. ${hint}`
}

export function protectedVmView(snapshot: Snapshot, vm: ProtectedVm): VmView {
  const active = vm[activeSide(vm.protection)]
  const seen = snapshot.fabric.find(
    (found) =>
      found.vaultId === vm.vaultId &&
      found.vmmServer === active.vmmServer &&
      found.vm.fabricVmId === active.fabricVmId,
  )
  const replication = replicationOf(snapshot, vm)
  const points = replicaOf(snapshot, vm)?.points.length ?? 0
  const { health, reasons } = healthOf(snapshot, vm)
  const job = snapshot.jobs.find((each) => each.vaultId === vm.vaultId && each.vmId === vm.vmId)
  const input = { protection: vm.protection, test: vm.test, pointCount: points }
  const cycle = replication?.lastCycle
  const engine = engineStateOf(snapshot, vm)
  return {
    vmId: vm.vmId,
    fabricVmId: active.fabricVmId,
    name: vm.name,
    vmmServer: active.vmmServer,
    cloud: active.cloud,
    host: active.host,
    power: seen?.vm.observation.power ?? 'off',
    state: vm.protection.kind,
    stateText: protectionText(vm.protection),
    health,
    healthReasons: reasons.map(({ text }) => text),
    healthFindings: reasons.map((reason) => ({
      severity: reason.severity,
      text: reason.text,
      command: commandOf(vm.name, reason),
    })),
    // While a job works on it nothing else is accepted; that is what a person should see.
    allowedOperations: job ? [] : [...allowedOperations(input)],
    epoch: vm.epoch,
    dataAgeMs: dataAgeOf(snapshot, vm),
    testFailover: testView(vm),
    lastDrill: vm.test.lastDrill,
    source: { vmmServer: vm.source.vmmServer, host: vm.source.host },
    target: { vmmServer: vm.target.vmmServer, host: vm.target.host },
    policy: vm.policy,
    points,
    progress: replication?.progress ?? null,
    resync: engine.resync,
    proof: [...engine.proof],
    forecast: engine.forecast,
    catchUp: replication?.catchUp ?? null,
    owedPoints: replication?.owedPoints ?? 0,
    slowedByMs: engine.slowedByMs,
    mergeDebtBytes: engine.mergeDebtBytes,
    seed: vm.seed,
    lastCycle: cycle
      ? {
          seq: cycle.seq,
          capturedAtMs: cycle.capturedAtMs,
          changedBytes: cycle.changedBytes,
          sentBytes: cycle.sentBytes,
          freezeMs: cycle.freezeMs,
        }
      : null,
    totals: replication?.totals ?? null,
    currentJob: job?.jobId ?? null,
  }
}

function testView({ test }: ProtectedVm): VmView['testFailover'] {
  if (test.kind === 'none') return { state: 'none', notes: null, startedAtMs: null }
  const notes = test.kind === 'cleaningUp' ? test.notes : null
  return { state: test.kind, notes, startedAtMs: test.run.startedAtMs }
}

export function plainVmView({ jobs }: Snapshot, { vaultId, vm, vmmServer }: FoundVm): VmView {
  const job = jobs.find((each) => each.vaultId === vaultId && each.vmId === (vm.fabricVmId as string))
  return {
    vmId: null,
    fabricVmId: vm.fabricVmId,
    name: vm.name,
    vmmServer,
    cloud: vm.cloud,
    host: vm.host,
    power: vm.observation.power,
    state: 'unprotected',
    stateText: job ? 'being protected' : 'not protected',
    health: 'none',
    healthReasons: [],
    healthFindings: [],
    allowedOperations: job ? [] : [...plainOperations],
    epoch: null,
    dataAgeMs: null,
    testFailover: { state: 'none', notes: null, startedAtMs: null },
    lastDrill: null,
    source: null,
    target: null,
    policy: null,
    points: 0,
    progress: null,
    resync: null,
    proof: [],
    forecast: null,
    catchUp: null,
    owedPoints: 0,
    slowedByMs: 0,
    mergeDebtBytes: 0,
    seed: null,
    lastCycle: null,
    totals: null,
    currentJob: job?.jobId ?? null,
  }
}

export function pointViews(snapshot: Snapshot, vm: ProtectedVm): readonly PointView[] {
  const points = replicaOf(snapshot, vm)?.points ?? []
  return newestFirst(points).map((point) => ({
    ...point,
    name: pointName(point),
    ageMs: ageOf(snapshot, vm, point),
  }))
}
