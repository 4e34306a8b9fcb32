import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { pairingId } from '#shared/ids.ts'
import type { CoordinatorService } from '../../admin/service.ts'
import type { CloudView } from '../../admin/views.ts'
import { type InventoryRow, listInventories } from '../../store/inventory.ts'
import {
  type CloudRef,
  cloudName,
  deletePairing,
  insertPairing,
  listPairings,
  type Pairing,
  sameCloud,
} from '../../store/pairings.ts'
import { listProtectedVms } from '../../store/protected-vms.ts'
import { listReports } from '../../store/reports.ts'
import type { Db } from '../../store/schema.ts'
import { emit } from '../emit.ts'
import type { Engine } from '../engine.ts'
import { randomId } from '../random-id.ts'
import { ensurePossible } from './policy.ts'
import { type ResolvedCloud, resolveCloud } from './resolve.ts'

type CloudService = Pick<CoordinatorService, 'listClouds' | 'pairClouds' | 'unpairCloud'>

export function cloudService(engine: Engine): CloudService {
  const { db } = engine
  return {
    listClouds: () => cloudViews(engine, db),
    async pairClouds({ source: sourceName, target: targetName, policy, networkMap }) {
      const source = await resolveCloud(db, sourceName)
      const target = await resolveCloud(db, targetName)
      ensurePossible(policy, source.row.report)
      ensureDifferent(source, target)
      ensureNetworks(source.row, Object.keys(networkMap))
      ensureNetworks(target.row, Object.values(networkMap))
      const pairing: Pairing = {
        vaultId: source.row.vaultId,
        pairingId: pairingId.parse(randomId('pairing', engine.rng)),
        source: { vmmServer: source.vmmServer, cloud: source.cloud },
        target: { vmmServer: target.vmmServer, cloud: target.cloud },
        policy,
        networkMap,
        createdAtMs: engine.clock.now(),
      }
      await db.transaction().execute(async (tx) => {
        await ensureUnpaired(tx, pairing)
        await insertPairing(tx, pairing)
        const message = `cloud ${cloudName(source)} replicates to ${cloudName(target)}`
        await emit(engine, tx, pairing.vaultId, { severity: 'info', code: 'cloud-paired', message })
      })
      return viewOf(engine, db, pairing.source)
    },
    async unpairCloud(name) {
      const { vmmServer, cloud, row } = await resolveCloud(db, name)
      const pairing = (await listPairings(db)).find(
        (each) => each.vaultId === row.vaultId && sameCloud(each.source, { vmmServer, cloud }),
      )
      if (!pairing)
        throw new HotsiteError(
          'pairing-unknown',
          `cloud ${vmmServer}/${cloud} is not the source of a pairing`,
        )
      await db.transaction().execute(async (tx) => {
        const users = (await listProtectedVms(tx)).filter(({ vm }) => vm.pairingId === pairing.pairingId)
        if (users.length > 0)
          throw inUse(
            pairing,
            users.map(({ vm }) => vm.name),
          )
        await deletePairing(tx, pairing)
        const message = `cloud ${cloudName(pairing.source)} no longer replicates to ${cloudName(pairing.target)}`
        await emit(engine, tx, pairing.vaultId, { severity: 'info', code: 'cloud-unpaired', message })
      })
    },
  }
}

function ensureDifferent(source: ResolvedCloud, target: ResolvedCloud): void {
  if (sameCloud(source, target))
    throw new HotsiteError('cloud-pair-itself', `cloud ${cloudName(source)} cannot be paired with itself`)
  if (source.row.vaultId !== target.row.vaultId)
    throw new HotsiteError('cloud-unknown', `cloud ${cloudName(target)} belongs to another vault`)
}

/** Throws `network-unknown`. */
export function ensureNetworks({ report }: Pick<InventoryRow, 'report'>, names: readonly string[]): void {
  const known = report.networks.map(({ name }) => name)
  for (const name of names)
    if (!known.includes(name))
      throw new HotsiteError(
        'network-unknown',
        `${report.vmmServer} has no VM network "${name}"; it has ${known.join(', ') || 'none'}`,
      )
}

/** A cloud is in one pairing only, as the source or as the target. */
async function ensureUnpaired(tx: Db, { vaultId, source, target }: Pairing): Promise<void> {
  for (const pairing of await listPairings(tx)) {
    if (pairing.vaultId !== vaultId) continue
    for (const [cloud, role] of [
      [pairing.source, 'source'],
      [pairing.target, 'target'],
    ] as const) {
      const taken = [source, target].find((wanted) => sameCloud(wanted, cloud))
      if (taken)
        throw new HotsiteError(
          'cloud-already-paired',
          `cloud ${cloudName(taken)} is the ${role} of ${cloudName(pairing.source)} → ${cloudName(pairing.target)}`,
        )
    }
  }
}

const inUse = (pairing: Pairing, names: readonly string[]) =>
  new HotsiteError(
    'cloud-in-use',
    names.length === 1
      ? `VM ${names[0]} of cloud ${cloudName(pairing.source)} is protected`
      : `VMs ${names.join(', ')} of cloud ${cloudName(pairing.source)} are protected`,
  )

async function viewOf(engine: Engine, db: Db, cloud: CloudRef): Promise<CloudView> {
  const views = await cloudViews(engine, db)
  const view = views.find((each) => sameCloud(each, cloud))
  if (!view) throw new HotsiteError('cloud-unknown', `cloud ${cloudName(cloud)} is gone`)
  return view
}

async function cloudViews(engine: Engine, db: Db): Promise<readonly CloudView[]> {
  const pairings = await listPairings(db)
  const agents = await listReports(db, 'agent')
  return (await listInventories(db)).flatMap(({ vaultId, report }) =>
    report.clouds.map(({ name: cloud, hosts }): CloudView => {
      const ref = { vmmServer: report.vmmServer, cloud }
      const asSource = pairings.find((each) => each.vaultId === vaultId && sameCloud(each.source, ref))
      const asTarget = pairings.find((each) => each.vaultId === vaultId && sameCloud(each.target, ref))
      const pairing = asSource ?? asTarget
      return {
        ...ref,
        hosts: hosts.map((name) => {
          const agent = agents.find((row) => row.vaultId === vaultId && row.report.host === name)
          return {
            name,
            agentConnected: agent ? engine.connections.isConnected(vaultId, agent.serverId) : null,
          }
        }),
        vmCount: report.vms.filter((vm) => vm.cloud === cloud).length,
        role: asSource ? 'source' : asTarget ? 'target' : 'none',
        pairing: pairing
          ? {
              pairingId: pairing.pairingId,
              other: cloudName(asSource ? pairing.target : pairing.source),
              policy: pairing.policy,
              networkMap: { ...pairing.networkMap },
            }
          : null,
      }
    }),
  )
}
