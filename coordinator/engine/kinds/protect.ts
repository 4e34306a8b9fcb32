import { z } from 'zod'
import { defined } from '#shared/assert.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { fabricVmId } from '#shared/ids.ts'
import { replicationPolicy } from '#shared/messages/policy.ts'
import { mapNics } from '../../domain/network-mapping.ts'
import { place } from '../../domain/placement.ts'
import { noTest } from '../../domain/test-failover.ts'
import type { ProtectedVm } from '../../store/documents.ts'
import { nextEpoch } from '../../store/protected-vms.ts'
import { findFabricVm, pairingOfVm, placementHosts } from '../fabric-view.ts'
import { startReplicationRequest } from '../peers.ts'
import { byCommand, byTidyCommand, jobKind, type StepContext, type StepOutcome, vmOf } from '../step.ts'
import { awaitFirstPoint } from './first-copy.ts'
import { defineVm } from './target-vm.ts'

const params = z.object({ fabricVmId, vmmServer: z.string(), policy: replicationPolicy })
type Params = z.infer<typeof params>

export const protect = jobKind<Params>({
  kind: 'protect',
  params,
  steps: [
    { name: 'check', title: 'Check that the VM can be protected', run: check },
    { name: 'place', title: 'Choose the host of the replica', run: choosePlace },
    { name: 'prepare-replica', title: 'Prepare the replica at the target', run: prepareReplica },
    { name: 'start-replication', title: 'Start replication at the source', run: startReplication },
    { name: 'first-copy', title: 'Copy the disks for the first time', run: firstCopy },
    { name: 'define-replica-vm', title: 'Define the VM at the target', run: defineReplicaVm },
  ],
  undoSteps: [
    {
      name: 'stop-replication',
      title: 'Stop replication at the source',
      run: (context) => {
        const { source, vmId } = vmOf(context)
        return byTidyCommand(context, { server: source.agentId, kind: 'replication.stop', request: { vmId } })
      },
    },
    {
      name: 'remove-replica',
      title: 'Remove the replica at the target',
      run: (context) => {
        const { target, vmId } = vmOf(context)
        return byTidyCommand(context, { server: target.agentId, kind: 'replica.remove', request: { vmId } })
      },
    },
    {
      name: 'remove-replica-vm',
      title: 'Remove the VM at the target',
      run: (context) => {
        const { target } = vmOf(context)
        const request = { fabricVmId: target.fabricVmId }
        return byTidyCommand(context, { server: target.providerId, kind: 'vm.remove', request })
      },
    },
    {
      name: 'forget',
      title: 'Forget the protection',
      run: ({ vm }) => Promise.resolve(vm ? { kind: 'done', effect: { forget: true } } : { kind: 'skipped' }),
    },
  ],
  undo: (begun) => [
    ...(begun.has('start-replication') ? ['stop-replication'] : []),
    ...(begun.has('prepare-replica') ? ['remove-replica'] : []),
    ...(begun.has('define-replica-vm') ? ['remove-replica-vm'] : []),
    'forget',
  ],
})

async function check({ engine, job, params }: StepContext<Params>): Promise<StepOutcome> {
  const found = await findFabricVm(engine.db, job.vaultId, params)
  if (!found) throw new HotsiteError('vm-unknown', `${job.vmName} is no longer in the inventory`)
  if (found.vm.disks.length === 0) throw new HotsiteError('vm-not-eligible', `${job.vmName} has no disk`)
  const ids = new Set(found.vm.disks.map(({ diskId }) => diskId))
  if (ids.size !== found.vm.disks.length)
    throw new HotsiteError('vm-not-eligible', `two disks of ${job.vmName} have the same id`)
  await pairingOfVm(engine.db, job.vaultId, found)
  if (!found.agentId)
    throw new HotsiteError(
      'vm-not-eligible',
      `host ${found.vm.host} of ${job.vmName} has no registered recovery agent`,
    )
  if (!engine.connections.isConnected(job.vaultId, found.agentId))
    return { kind: 'waiting', reason: `the recovery agent of host ${found.vm.host} is not connected` }
  const sizeBytes = found.vm.disks.reduce((sum, disk) => sum + disk.sizeBytes, 0)
  return { kind: 'done', observed: { disks: found.vm.disks.length, sizeBytes } }
}

async function choosePlace({ engine, job, params, nowMs }: StepContext<Params>): Promise<StepOutcome> {
  const found = await findFabricVm(engine.db, job.vaultId, params)
  if (!found?.agentId) throw new HotsiteError('vm-unknown', `${job.vmName} or its host is gone`)
  const pairing = await pairingOfVm(engine.db, job.vaultId, found)
  const targetCloud = await placementHosts(engine, job.vaultId, pairing.target)
  const mapped = mapNics(found.vm.nics, pairing.networkMap)
  const { chosen, verdicts } = place(targetCloud.hosts, {
    sizeBytes: found.vm.disks.reduce((sum, disk) => sum + disk.sizeBytes, 0),
    networks: mapped.nics.flatMap(({ network }) => (network === null ? [] : [network])),
    classification: found.vm.classification,
    sourceHost: pairing.target.vmmServer === params.vmmServer ? found.vm.host : null,
  })
  if (chosen === null) {
    const why = verdicts.map(({ host, note }) => `${host}: ${note}`).join('; ') || 'it has no hosts'
    const cloud = `${pairing.target.vmmServer}/${pairing.target.cloud}`
    throw new HotsiteError('placement-impossible', `no host of ${cloud} can take ${job.vmName} (${why})`, {
      details: { verdicts },
    })
  }
  const agentId = defined(targetCloud.agents.get(chosen), `the agent of ${chosen}`)
  const { cloud: _cloud, observation: _observation, ...description } = found.vm
  const vm: ProtectedVm = {
    vaultId: job.vaultId,
    vmId: job.vmId,
    pairingId: pairing.pairingId,
    name: found.vm.name,
    description,
    policy: params.policy,
    epoch: await nextEpoch(engine.db, job.vaultId, job.vmId),
    direction: 'forward',
    source: {
      ...pairing.source,
      host: found.vm.host,
      providerId: found.providerId,
      agentId: found.agentId,
      fabricVmId: found.vm.fabricVmId,
      nics: found.vm.nics,
      fenced: false,
    },
    target: {
      ...pairing.target,
      host: chosen,
      providerId: targetCloud.providerId,
      agentId,
      fabricVmId: fabricVmId.parse(`replica-${job.jobId}`),
      nics: [...mapped.nics],
      fenced: false,
    },
    protection: { kind: 'enabling' },
    test: noTest,
    overlay: null,
    sourceFence: null,
    ticket: null,
    protectedAtMs: nowMs,
  }
  const notices = mapped.unmapped.map((network) => ({
    severity: 'warning' as const,
    code: 'network-unmapped',
    message: `network ${network} of ${vm.name} is not mapped: its NIC stays unconnected at the target`,
  }))
  return { kind: 'done', observed: { host: chosen, verdicts }, effect: { insert: vm, notices } }
}

function prepareReplica(context: StepContext<Params>): Promise<StepOutcome> {
  const { vmId, epoch, description, source, target, policy } = vmOf(context)
  const request = { vmId, epoch, disks: description.disks, sourceServerId: source.agentId, policy }
  return byCommand(context, { server: target.agentId, kind: 'replica.prepare', request }, () => ({
    kind: 'done',
  }))
}

async function startReplication(context: StepContext<Params>): Promise<StepOutcome> {
  const vm = vmOf(context)
  const { source: from, target: to, epoch } = vm
  const start = { from, to, epoch, cause: 'initial' as const }
  const { request, kept } = await startReplicationRequest(context.engine, vm, start)
  return byCommand(context, { server: from.agentId, kind: 'replication.start', request }, () => ({
    kind: 'done',
    effect: { event: { kind: 'replicationStarted' }, patch: { ticket: kept } },
  }))
}

function firstCopy(context: StepContext<Params>): Promise<StepOutcome> {
  const vm = vmOf(context)
  return awaitFirstPoint(context, vm, { from: vm.source, to: vm.target })
}

function defineReplicaVm(context: StepContext<Params>): Promise<StepOutcome> {
  const vm = vmOf(context)
  const { target: side, name } = vm
  const definition = { side, fabricVmId: side.fabricVmId, name, disks: [], nics: side.nics }
  const notice = { severity: 'info' as const, code: 'vm-protected', message: `${name} is protected` }
  return defineVm(context, vm, definition, { event: { kind: 'ready' }, notices: [notice] })
}
