/** Names and ids as people type them. An ambiguous name is refused, and the candidates are named. */
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { PointRef } from '#shared/messages/commands.ts'
import type { PointReport } from '#shared/messages/reports.ts'
import type { ProtectedVm } from '../../store/documents.ts'
import { type InventoryRow, listInventories } from '../../store/inventory.ts'
import { findJob, type JobRow } from '../../store/jobs.ts'
import type { CloudRef } from '../../store/pairings.ts'
import { listProtectedVms, type StoredVm } from '../../store/protected-vms.ts'
import type { Db } from '../../store/schema.ts'
import { listServers, type ServerRow } from '../../store/servers.ts'
import { listVaults, type VaultRow } from '../../store/vaults.ts'
import { type FoundVm, listFabricVms } from '../fabric-view.ts'
import { pointName, pointsAt } from '../peers.ts'

function only<T>(candidates: readonly T[], name: string, describe: (candidate: T) => string): T | undefined {
  if (candidates.length <= 1) return candidates[0]
  const listed = candidates.map(describe)
  throw new HotsiteError('name-ambiguous', `"${name}" may be ${listed.join(' or ')}`, {
    details: { candidates: listed },
  })
}

export async function resolveVault(db: Db, name: string): Promise<VaultRow> {
  const vaults = await listVaults(db)
  const found = vaults.find((vault) => vault.vaultId === name || vault.name === name)
  if (found) return found
  throw new HotsiteError('vault-unknown', `there is no vault "${name}"`)
}

export async function resolveServer(db: Db, name: string): Promise<ServerRow> {
  const servers = await listServers(db)
  const byId = servers.find(({ serverId }) => serverId === name)
  const byName = servers.filter((server) => server.name === name)
  const found = byId ?? only(byName, name, ({ serverId, kind }) => `${kind} ${serverId}`)
  if (found) return found
  throw new HotsiteError('server-unknown', `there is no server "${name}"`)
}

export interface ResolvedCloud extends CloudRef {
  readonly row: InventoryRow
}

/** "<vmm server>/<cloud>", or just the cloud when only one has that name. */
export async function resolveCloud(db: Db, name: string): Promise<ResolvedCloud> {
  const clouds = (await listInventories(db)).flatMap((row) =>
    row.report.clouds.map((cloud) => ({ vmmServer: row.report.vmmServer, cloud: cloud.name, row })),
  )
  const fullName = ({ vmmServer, cloud }: CloudRef) => `${vmmServer}/${cloud}`
  const matching = clouds.filter((cloud) => fullName(cloud) === name || cloud.cloud === name)
  const found = only(matching, name, fullName)
  if (found) return found
  throw new HotsiteError('cloud-unknown', `there is no cloud "${name}"`)
}

export type ResolvedVm =
  | { readonly kind: 'protected'; readonly stored: StoredVm }
  | { readonly kind: 'plain'; readonly found: FoundVm }

/** Every id under which the fabrics know a protected VM: its replica is the same VM, not another one. */
export function fabricIdsOf(vm: ProtectedVm): readonly string[] {
  const own = [
    `${vm.source.vmmServer}/${vm.source.fabricVmId}`,
    `${vm.target.vmmServer}/${vm.target.fabricVmId}`,
  ]
  return vm.test.kind === 'none' ? own : [...own, `${vm.target.vmmServer}/${vm.test.run.fabricVmId}`]
}

export async function listPlainVms(db: Db): Promise<readonly FoundVm[]> {
  const stored = await listProtectedVms(db)
  const taken = new Set(stored.flatMap(({ vm }) => fabricIdsOf(vm).map((id) => `${vm.vaultId}/${id}`)))
  const all = await listFabricVms(db)
  return all.filter((found) => !taken.has(`${found.vaultId}/${found.vmmServer}/${found.vm.fabricVmId}`))
}

export async function resolveVm(db: Db, name: string): Promise<ResolvedVm> {
  const known = (await listProtectedVms(db)).filter(
    ({ vm }) => vm.vmId === name || vm.name === name || fabricIdsOf(vm).some((id) => id.endsWith(`/${name}`)),
  )
  const plain = (await listPlainVms(db)).filter(
    ({ vm, vmmServer }) => vm.fabricVmId === name || vm.name === name || `${vmmServer}/${vm.name}` === name,
  )
  const candidates: ResolvedVm[] = [
    ...known.map((stored): ResolvedVm => ({ kind: 'protected', stored })),
    ...plain.map((found): ResolvedVm => ({ kind: 'plain', found })),
  ]
  const found = only(candidates, name, (candidate) =>
    candidate.kind === 'protected'
      ? `protected VM ${candidate.stored.vm.vmId}`
      : `${candidate.found.vm.fabricVmId} on ${candidate.found.vmmServer}`,
  )
  if (found) return found
  throw new HotsiteError('vm-unknown', `there is no VM "${name}"`)
}

export async function resolveProtectedVm(db: Db, name: string): Promise<StoredVm> {
  const found = await resolveVm(db, name)
  if (found.kind === 'protected') return found.stored
  throw new HotsiteError('vm-not-protected', `VM ${found.found.vm.name} is not protected`)
}

export async function resolveJob(db: Db, id: string): Promise<JobRow> {
  const job = await findJob(db, id)
  if (job) return job
  throw new HotsiteError('job-unknown', `there is no job "${id}"`)
}

/**
 * "latest" stays open (null) until the disks are made; any other point must be there now. A damaged one is refused with
 * the newest sound one named, also when it is the latest: an older state is never chosen silently. `any`: it need not be
 * sound. Throws `point-unknown`, `point-damaged`.
 */
export async function resolvePoint(
  db: Db,
  vm: ProtectedVm,
  choice: string,
  demand: 'sound' | 'any' = 'sound',
): Promise<PointRef | null> {
  const points = await pointsAt(db, vm, vm.target)
  const point = choice === 'latest' ? points[0] : points.find((each) => pointName(each) === choice)
  if (point?.damaged && demand === 'sound') throw damagedPoint(vm, point, points)
  if (choice === 'latest') return null
  if (point) return { epoch: point.epoch, seq: point.seq }
  const names = points.slice(0, 20).map(pointName)
  throw new HotsiteError(
    'point-unknown',
    `${vm.name} has no recovery point "${choice}"; it has ${names.join(', ') || 'none'}`,
    { details: { points: names } },
  )
}

function damagedPoint(
  { name }: ProtectedVm,
  point: PointReport,
  points: readonly PointReport[],
): HotsiteError {
  const sound = points.find(({ damaged }) => !damaged)
  const instead = sound ? `the newest sound one is ${pointName(sound)}` : 'none is sound'
  const message = `recovery point ${pointName(point)} of ${name} is damaged at the target; ${instead}`
  return new HotsiteError('point-damaged', message, {
    details: { newestSoundPoint: sound ? pointName(sound) : null },
  })
}
