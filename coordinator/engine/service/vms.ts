import { errorFromDocument, HotsiteError } from '#shared/errors/hotsite-error.ts'
import { commandId, vmId } from '#shared/ids.ts'
import type { ReplicationPolicy } from '#shared/messages/policy.ts'
import { replicationPolicy } from '#shared/messages/policy.ts'
import type { CoordinatorService } from '../../admin/service.ts'
import type { VmOperation } from '../../domain/allowed-operations.ts'
import type { ProtectedVm } from '../../store/documents.ts'
import { listInventories } from '../../store/inventory.ts'
import { endCommand, findCommand, putCommand } from '../../store/outbox.ts'
import type { Db } from '../../store/schema.ts'
import type { Engine } from '../engine.ts'
import { pairingOfVm } from '../fabric-view.ts'
import { randomId } from '../random-id.ts'
import { ensureNetworks } from './clouds.ts'
import { ensurePossible } from './policy.ts'
import { resolvePoint, resolveProtectedVm, resolveVm } from './resolve.ts'
import { startJob } from './start-job.ts'
import { allVmViews, plainVmView, pointViews, protectedVmView, takeSnapshot } from './vm-views.ts'

type VmService = Pick<
  CoordinatorService,
  | 'listVms'
  | 'showVm'
  | 'protect'
  | 'unprotect'
  | 'setPolicy'
  | 'pause'
  | 'resume'
  | 'resync'
  | 'listPoints'
  | 'pinPoint'
  | 'testFailover'
  | 'cleanupTest'
  | 'plannedFailover'
  | 'unplannedFailover'
  | 'changePoint'
  | 'commit'
  | 'reverse'
>

export function vmService(engine: Engine): VmService {
  const { db } = engine
  const operate = async (
    name: string,
    operation: VmOperation,
    paramsOf: (vm: ProtectedVm) => Promise<Record<string, unknown>> | Record<string, unknown> = () => ({}),
  ) => {
    const { vm } = await resolveProtectedVm(db, name)
    const params = await paramsOf(vm)
    return startJob(engine, { vaultId: vm.vaultId, vmId: vm.vmId, vmName: vm.name, operation, params })
  }
  return {
    listVms: () => allVmViews(engine),
    async showVm(name) {
      const found = await resolveVm(db, name)
      const snapshot = await takeSnapshot(engine)
      return found.kind === 'protected'
        ? protectedVmView(snapshot, found.stored.vm)
        : plainVmView(snapshot, found.found)
    },
    protect: (name, { policy = {} }) => protect(engine, name, policy),
    unprotect: (name, { keepReplica }) => operate(name, 'unprotect', () => ({ keepReplica })),
    setPolicy: (name, changes) =>
      operate(name, 'setPolicy', ({ policy }) => ({ policy: merged(policy, changes) })),
    pause: (name) => operate(name, 'pause'),
    resume: (name) => operate(name, 'resume'),
    resync: (name) => operate(name, 'resync'),
    async listPoints(name) {
      const { vm } = await resolveProtectedVm(db, name)
      return pointViews(await takeSnapshot(engine), vm)
    },
    pinPoint: (name, point, pinned) => pinPoint(engine, name, { point, pinned }),
    testFailover: (name, { point, network }) =>
      operate(name, 'testFailover', async (vm) => {
        await ensureTestNetwork(db, vm, network)
        return { point: await resolvePoint(db, vm, point), network }
      }),
    cleanupTest: (name, { notes, outcome }) => operate(name, 'cleanupTest', () => ({ notes, outcome })),
    plannedFailover: (name) => operate(name, 'plannedFailover'),
    unplannedFailover: (name, { point, shutDownSource }) =>
      operate(name, 'unplannedFailover', async (vm) => ({
        point: await resolvePoint(db, vm, point),
        shutDownSource,
      })),
    changePoint: (name, { point }) =>
      operate(name, 'changePoint', async (vm) => ({ point: await resolvePoint(db, vm, point) })),
    commit: (name) => operate(name, 'commit'),
    reverse: (name) => operate(name, 'reverse'),
  }
}

async function ensureTestNetwork(db: Db, { vaultId, target }: ProtectedVm, network: string | null) {
  if (network === null) return
  const rows = await listInventories(db)
  const row = rows.find((each) => each.vaultId === vaultId && each.report.vmmServer === target.vmmServer)
  if (row) ensureNetworks(row, [network])
}

/** Fields left out stay as they are. */
function merged(policy: ReplicationPolicy, changes: Partial<ReplicationPolicy>): ReplicationPolicy {
  const parsed = replicationPolicy.safeParse({ ...policy, ...changes })
  if (parsed.success) {
    ensurePossible(parsed.data)
    return parsed.data
  }
  throw new HotsiteError('request-invalid', `the policy is not valid: ${parsed.error.issues[0]?.message}`)
}

async function protect(engine: Engine, name: string, changes: Partial<ReplicationPolicy>) {
  const found = await resolveVm(engine.db, name)
  if (found.kind === 'protected')
    throw new HotsiteError('vm-already-protected', `${found.stored.vm.name} is protected already`)
  const { vaultId, vm, vmmServer } = found.found
  const pairing = await pairingOfVm(engine.db, vaultId, found.found)
  const params = { fabricVmId: vm.fabricVmId, vmmServer, policy: merged(pairing.policy, changes) }
  const id = vmId.parse(vm.fabricVmId)
  return startJob(engine, { vaultId, vmId: id, vmName: vm.name, operation: 'protect', params })
}

/** Not a job: it changes nothing of the VM. Answers when the target has done it. */
async function pinPoint(
  engine: Engine,
  name: string,
  { point: choice, pinned }: { point: string; pinned: boolean },
): Promise<void> {
  const { db, clock, limits, bus } = engine
  const { vm } = await resolveProtectedVm(db, name)
  const newest = pointViews(await takeSnapshot(engine), vm)[0]
  const point = (await resolvePoint(db, vm, choice)) ?? newest
  if (!point) throw new HotsiteError('no-recovery-point', `${vm.name} has no recovery point`)
  const { vaultId, target } = vm
  if (!engine.connections.isConnected(vaultId, target.agentId))
    throw new HotsiteError('agent-disconnected', `the recovery agent of ${target.host} is not connected`)
  const id = commandId.parse(`${randomId('pin', engine.rng)}`)
  const request = { vmId: vm.vmId, point: { epoch: point.epoch, seq: point.seq }, pinned }
  const command = { vaultId, vmId: vm.vmId, commandId: id, serverId: target.agentId } as const
  await putCommand(db, { ...command, kind: 'replica.pin', request }, clock.now())
  bus.notify()
  const untilMs = clock.monotonicMs() + limits.tidyWaitMs
  while (clock.monotonicMs() < untilMs) {
    const seen = bus.version
    const row = await findCommand(db, vaultId, id)
    if (row?.state === 'done') return
    if (row?.state === 'failed') throw errorFromDocument(JSON.parse(row.error ?? '{}'))
    await bus.changedSince(seen, {
      timeoutMs: limits.jobPollMs,
      signal: AbortSignal.timeout(limits.tidyWaitMs),
    })
  }
  await endCommand(db, command, { state: 'abandoned', nowMs: clock.now() })
  throw new HotsiteError('agent-timeout', `the recovery agent of ${target.host} did not answer`)
}
