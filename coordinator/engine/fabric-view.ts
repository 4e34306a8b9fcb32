/** The inventories of all providers, asked the way the engine needs them. */
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { FabricVmId, ServerId, VaultId } from '#shared/ids.ts'
import type { InventoryReport } from '#shared/messages/reports.ts'
import type { PlacementHost } from '../domain/placement.ts'
import { type InventoryRow, listInventories } from '../store/inventory.ts'
import { type CloudRef, cloudName, listPairings, type Pairing, sameCloud } from '../store/pairings.ts'
import { listReports } from '../store/reports.ts'
import type { Db } from '../store/schema.ts'
import type { Engine } from './engine.ts'

export type FabricVm = InventoryReport['vms'][number]

export interface FoundVm {
  readonly vaultId: VaultId
  readonly vm: FabricVm
  readonly vmmServer: string
  readonly providerId: ServerId
  /** Of the VM's host; null: none is registered. */
  readonly agentId: ServerId | null
}

export async function listFabricVms(db: Db): Promise<readonly FoundVm[]> {
  const inventories = await listInventories(db)
  const agents = await listReports(db, 'agent')
  return inventories.flatMap(({ vaultId, serverId, report }) =>
    report.vms.map((vm) => ({
      vaultId,
      vm,
      vmmServer: report.vmmServer,
      providerId: serverId,
      agentId:
        agents.find((agent) => agent.vaultId === vaultId && agent.report.host === vm.host)?.serverId ?? null,
    })),
  )
}

export async function findFabricVm(
  db: Db,
  vaultId: VaultId,
  { fabricVmId, vmmServer }: { fabricVmId: FabricVmId; vmmServer: string },
): Promise<FoundVm | undefined> {
  const all = await listFabricVms(db)
  return all.find(
    (found) =>
      found.vaultId === vaultId && found.vmmServer === vmmServer && found.vm.fabricVmId === fabricVmId,
  )
}

/** Throws `cloud-not-paired`. */
export async function pairingOfVm(
  db: Db,
  vaultId: VaultId,
  { vm, vmmServer }: Pick<FoundVm, 'vm' | 'vmmServer'>,
): Promise<Pairing> {
  const cloud = vm.cloud
  if (cloud === null)
    throw new HotsiteError(
      'cloud-not-paired',
      `${vm.name} is in no cloud, so nothing says where to replicate it`,
    )
  const pairings = await listPairings(db)
  const pairing = pairings.find(
    (each) => each.vaultId === vaultId && sameCloud(each.source, { vmmServer, cloud }),
  )
  if (pairing) return pairing
  throw new HotsiteError(
    'cloud-not-paired',
    `cloud ${vmmServer}/${cloud} of ${vm.name} is not the source of a pairing`,
  )
}

export function findCloud(
  inventories: readonly InventoryRow[],
  vaultId: VaultId,
  { vmmServer, cloud }: CloudRef,
): { row: InventoryRow; hosts: readonly string[] } | undefined {
  for (const row of inventories) {
    if (row.vaultId !== vaultId || row.report.vmmServer !== vmmServer) continue
    const found = row.report.clouds.find(({ name }) => name === cloud)
    if (found) return { row, hosts: found.hosts }
  }
  return undefined
}

export interface TargetCloud {
  readonly providerId: ServerId
  readonly hosts: readonly PlacementHost[]
  readonly agents: ReadonlyMap<string, ServerId>
}

/** Throws `cloud-unknown` when the provider of the target has not reported it. */
export async function placementHosts(
  { db, connections }: Pick<Engine, 'db' | 'connections'>,
  vaultId: VaultId,
  target: CloudRef,
): Promise<TargetCloud> {
  const found = findCloud(await listInventories(db), vaultId, target)
  if (!found) throw new HotsiteError('cloud-unknown', `cloud ${cloudName(target)} is not in the inventory`)
  const reports = (await listReports(db, 'agent')).filter((row) => row.vaultId === vaultId)
  const agents = new Map(reports.map(({ report, serverId }) => [report.host, serverId]))
  const hosts = found.row.report.hosts
    .filter(({ name }) => found.hosts.includes(name))
    .map(({ name, networks, classifications }) => {
      const agent = reports.find(({ report }) => report.host === name)
      return {
        name,
        networks,
        classifications,
        agent: agent
          ? {
              connected: connections.isConnected(vaultId, agent.serverId),
              replicaFreeBytes: agent.report.replicaFreeBytes,
            }
          : null,
      }
    })
  return { providerId: found.row.serverId, hosts, agents }
}
