/** How a VM becomes a protected one, whichever way its first copy travels. */
import { z } from 'zod'
import { defined } from '#shared/assert.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { fabricVmId } from '#shared/ids.ts'
import { replicationPolicy } from '#shared/messages/policy.ts'
import { mapNics } from '../../domain/network-mapping.ts'
import { place } from '../../domain/placement.ts'
import type { Protection } from '../../domain/protection.ts'
import { noTest } from '../../domain/test-failover.ts'
import type { ProtectedVm } from '../../store/documents.ts'
import { nextEpoch } from '../../store/protected-vms.ts'
import { findFabricVm, pairingOfVm, placementHosts } from '../fabric-view.ts'
import type { StepContext, StepOutcome } from '../step.ts'

export const placeParams = z.object({ fabricVmId, vmmServer: z.string(), policy: replicationPolicy })
export type PlaceParams = z.infer<typeof placeParams>

/** Inventory, disks, paired cloud, agent of the host. */
export async function checkVm({ engine, job, params }: StepContext<PlaceParams>): Promise<StepOutcome> {
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

/** Chooses the host of the replica and makes the protected VM, in the state given. */
export async function choosePlace(
  { engine, job, params, nowMs }: StepContext<PlaceParams>,
  protection: Protection,
): Promise<StepOutcome> {
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
    protection,
    test: noTest,
    overlay: null,
    sourceFence: null,
    ticket: null,
    protectedAtMs: nowMs,
    seed: null,
  }
  const notices = mapped.unmapped.map((network) => ({
    severity: 'warning' as const,
    code: 'network-unmapped',
    message: `network ${network} of ${vm.name} is not mapped: its NIC stays unconnected at the target`,
  }))
  return { kind: 'done', observed: { host: chosen, verdicts }, effect: { insert: vm, notices } }
}
