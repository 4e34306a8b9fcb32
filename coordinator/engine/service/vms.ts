import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { type VaultId, vmId } from '#shared/ids.ts'
import type { ReplicationPolicy } from '#shared/messages/policy.ts'
import { replicationPolicy } from '#shared/messages/policy.ts'
import type { CoordinatorService } from '../../admin/service.ts'
import type { VmOperation } from '../../domain/allowed-operations.ts'
import type { ProtectedVm } from '../../store/documents.ts'
import { type InventoryRow, listInventories } from '../../store/inventory.ts'
import type { Db } from '../../store/schema.ts'
import { askAgent } from '../ask-agent.ts'
import type { Engine } from '../engine.ts'
import { type FoundVm, pairingOfVm } from '../fabric-view.ts'
import { replicationAt } from '../peers.ts'
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
  | 'approveResync'
  | 'verify'
  | 'exportSeed'
  | 'importSeed'
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
    protect: (name, options) => protect(engine, name, options),
    unprotect: (name, { keepReplica }) => operate(name, 'unprotect', () => ({ keepReplica })),
    setPolicy: (name, changes) =>
      operate(name, 'setPolicy', async (vm) => ({
        policy: merged(vm.policy, changes, await inventoryOf(db, vm.vaultId, vm.source.vmmServer)),
      })),
    pause: (name) => operate(name, 'pause'),
    resume: (name) => operate(name, 'resume'),
    resync: (name) => operate(name, 'resync'),
    approveResync: (name) => approveResync(engine, name),
    verify: (name, { percent }) => operate(name, 'verify', () => ({ percent })),
    exportSeed: (name, options) => exportSeed(engine, name, options),
    importSeed: (name, { folder }) => operate(name, 'importSeed', () => ({ folder })),
    async listPoints(name) {
      const { vm } = await resolveProtectedVm(db, name)
      return pointViews(await takeSnapshot(engine), vm)
    },
    pinPoint: (name, point, pinned) => pinPoint(engine, name, { point, pinned }),
    testFailover: (name, { point, network, verify = true }) =>
      operate(name, 'testFailover', async (vm) => {
        await ensureTestNetwork(db, vm, network)
        return { point: await resolvePoint(db, vm, point), network, verify }
      }),
    cleanupTest: (name, { notes, outcome }) => operate(name, 'cleanupTest', () => ({ notes, outcome })),
    plannedFailover: (name, { verify = true } = {}) =>
      operate(name, 'plannedFailover', async (vm) => {
        // The last point stands on the newest one: what is damaged there is damaged in it.
        await resolvePoint(db, vm, 'latest')
        return { verify }
      }),
    unplannedFailover: (name, { point, shutDownSource, verify = true }) =>
      operate(name, 'unplannedFailover', async (vm) => ({
        point: await resolvePoint(db, vm, point),
        shutDownSource,
        verify,
      })),
    changePoint: (name, { point }) =>
      operate(name, 'changePoint', async (vm) => ({ point: await resolvePoint(db, vm, point) })),
    commit: (name) => operate(name, 'commit'),
    reverse: (name) => operate(name, 'reverse'),
  }
}

async function ensureTestNetwork(db: Db, { vaultId, target }: ProtectedVm, network: string | null) {
  if (network === null) return
  const row = await inventoryOf(db, vaultId, target.vmmServer)
  if (row) ensureNetworks(row, [network])
}

async function inventoryOf(db: Db, vaultId: VaultId, vmmServer: string): Promise<InventoryRow | undefined> {
  const rows = await listInventories(db)
  return rows.find((each) => each.vaultId === vaultId && each.report.vmmServer === vmmServer)
}

/** Fields left out stay as they are. */
function merged(
  policy: ReplicationPolicy,
  changes: Partial<ReplicationPolicy>,
  source: InventoryRow | undefined,
): ReplicationPolicy {
  const parsed = replicationPolicy.safeParse({ ...policy, ...changes })
  if (parsed.success) {
    ensurePossible(parsed.data, source?.report)
    return parsed.data
  }
  throw new HotsiteError('request-invalid', `the policy is not valid: ${parsed.error.issues[0]?.message}`)
}

async function placeParamsOf(engine: Engine, found: FoundVm, changes: Partial<ReplicationPolicy>) {
  const pairing = await pairingOfVm(engine.db, found.vaultId, found)
  const { vm, vmmServer, vaultId } = found
  const policy = merged(pairing.policy, changes, await inventoryOf(engine.db, vaultId, vmmServer))
  return { fabricVmId: vm.fabricVmId, vmmServer, policy }
}

async function protect(
  engine: Engine,
  name: string,
  { policy = {}, startAtMs }: Parameters<CoordinatorService['protect']>[1],
) {
  const found = await resolveVm(engine.db, name)
  if (found.kind === 'protected')
    throw new HotsiteError('vm-already-protected', `${found.stored.vm.name} is protected already`)
  ensureStartTime(engine, startAtMs)
  const { vaultId, vm } = found.found
  const params = { ...(await placeParamsOf(engine, found.found, policy)), startAtMs: startAtMs ?? null }
  const id = vmId.parse(vm.fabricVmId)
  return startJob(engine, { vaultId, vmId: id, vmName: vm.name, operation: 'protect', params })
}

/** Not a job: it changes nothing of the VM. Answers when the target has done it. */
async function pinPoint(
  engine: Engine,
  name: string,
  { point: choice, pinned }: { point: string; pinned: boolean },
): Promise<void> {
  const { db } = engine
  const { vm } = await resolveProtectedVm(db, name)
  const newest = pointViews(await takeSnapshot(engine), vm)[0]
  const point = (await resolvePoint(db, vm, choice, 'any')) ?? newest
  if (!point) throw new HotsiteError('no-recovery-point', `${vm.name} has no recovery point`)
  const request = { vmId: vm.vmId, point: { epoch: point.epoch, seq: point.seq }, pinned }
  await askAgent(engine, vm, { side: vm.target, kind: 'replica.pin', request })
}

/** Begins at once what waits for its time, its window or a person's word. */
async function approveResync(engine: Engine, name: string): Promise<void> {
  const { vm } = await resolveProtectedVm(engine.db, name)
  const side = vm.protection.kind === 'reversing' ? vm.target : vm.source
  const report = await replicationAt(engine.db, vm, side)
  if (!report?.resync || report.epoch !== vm.epoch)
    throw new HotsiteError('resync-not-waiting', `no resynchronization of ${vm.name} waits`)
  await askAgent(engine, vm, { side, kind: 'replication.approveResync', request: { vmId: vm.vmId } })
}

/** A start long past what anybody plans is a slip of the pen. */
const startAheadMaxMs = 366 * 86_400_000

function ensureStartTime(engine: Engine, startAtMs: number | undefined): void {
  if (startAtMs === undefined) return
  const aheadMs = startAtMs - engine.clock.now()
  if (aheadMs > 0 && aheadMs <= startAheadMaxMs) return
  const when = new Date(startAtMs).toISOString()
  const why = aheadMs <= 0 ? 'is past' : 'is more than a year ahead'
  throw new HotsiteError('start-time-invalid', `the first copy cannot start at ${when}: it ${why}`)
}

/** Of a VM that nobody protects as `protect` does it; of one that waits for its seed with the policy it has. */
async function exportSeed(
  engine: Engine,
  name: string,
  { folder, partBytes, policy }: Parameters<CoordinatorService['exportSeed']>[1],
) {
  const found = await resolveVm(engine.db, name)
  if (found.kind === 'plain') {
    const params = await placeParamsOf(engine, found.found, policy ?? {})
    const { vaultId, vm } = found.found
    const id = vmId.parse(vm.fabricVmId)
    return startJob(engine, {
      vaultId,
      vmId: id,
      vmName: vm.name,
      operation: 'exportSeed',
      params: { ...params, folder, partBytes },
    })
  }
  const { vm } = found.stored
  if (policy) throw new HotsiteError('vm-already-protected', `${vm.name} has its policy already`)
  const { fabricVmId, vmmServer } = vm.source
  return startJob(engine, {
    vaultId: vm.vaultId,
    vmId: vm.vmId,
    vmName: vm.name,
    operation: 'exportSeed',
    params: { fabricVmId, vmmServer, policy: vm.policy, folder, partBytes },
  })
}
