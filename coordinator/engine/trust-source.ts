/** What registration asks and records, answered from the database. */
import type { ServerId, VaultId } from '#shared/ids.ts'
import { registrationLimits } from '#shared/trust/trust-limits.ts'
import type { RecordOutcome, ServerToRecord, VaultTrustSource } from '../registration/trust-source.ts'
import { listProtectedVms } from '../store/protected-vms.ts'
import type { Db } from '../store/schema.ts'
import { listServers, putServer, revokeServer, type ServerRow } from '../store/servers.ts'
import { findVault, listVaults } from '../store/vaults.ts'
import { applyEffect } from './apply-effect.ts'
import { emit } from './emit.ts'
import type { Engine } from './engine.ts'
import type { VaultTrusts } from './vault-trust.ts'

export function createTrustSource(engine: Engine, trusts: VaultTrusts): VaultTrustSource {
  return {
    async listVaultCertificates() {
      const vaults = await listVaults(engine.db)
      return vaults.flatMap(({ certificatePem }) => (certificatePem === null ? [] : [certificatePem]))
    },
    async findVault(vaultId) {
      const vault = await findVault(engine.db, vaultId)
      return vault && { vaultId, name: vault.name, certificatePem: vault.certificatePem }
    },
    vaultKey: (vaultId) => trusts.key(vaultId),
    async recordServer(server) {
      const { generation } = trusts.key(server.vaultId)
      const outcome = await engine.db.transaction().execute((tx) => record(engine, tx, server, generation))
      await trusts.reload()
      if (outcome.outcome === 'replaced') {
        const { revokedServerId, serverId } = outcome
        const message = `the server was registered anew as ${serverId}`
        const isOld = ({ peer }: { peer: { serverId: ServerId } }) => peer.serverId === revokedServerId
        engine.connections.drop(isOld, { code: 'membership-revoked', message })
      }
      engine.bus.notify()
      return outcome
    },
  }
}

async function record(
  engine: Engine,
  tx: Db,
  server: ServerToRecord,
  generation: number,
): Promise<RecordOutcome> {
  const { vaultId, kind, name } = server
  const publicKey = Buffer.from(server.publicKey).toString('base64')
  const known = (await listServers(tx, vaultId)).find((row) => row.kind === kind && row.name === name)
  if (known?.publicKey === publicKey) {
    await putServer(tx, rowOf(server, { serverId: known.serverId, publicKey, generation }))
    return { outcome: 'repeated', serverId: known.serverId }
  }
  if (known && !server.replace)
    return {
      outcome: 'name-taken',
      existing: { serverId: known.serverId, registeredAtMs: known.registeredAtMs },
    }
  const { serverId } = server
  await putServer(tx, rowOf(server, { serverId, publicKey, generation }))
  await emit(engine, tx, vaultId, {
    severity: known ? 'warning' : 'info',
    code: known ? 'server-replaced' : 'server-registered',
    message: `${kind} ${name} on ${server.host} ${known ? `replaces ${known.serverId}` : 'was registered'}`,
    serverId,
  })
  if (!known) return { outcome: 'recorded', serverId }
  await takeOver(engine, tx, { vaultId, from: known, to: serverId })
  return { outcome: 'replaced', serverId, revokedServerId: known.serverId }
}

function rowOf(
  { vaultId, kind, name, host, registeredAtMs }: ServerToRecord,
  own: Pick<ServerRow, 'serverId' | 'publicKey' | 'generation'>,
) {
  const membershipExpiresAtMs = registeredAtMs + registrationLimits.membershipLifetimeMs
  return { vaultId, kind, name, host, registeredAtMs, membershipExpiresAtMs, ...own }
}

/** VMs and undelivered commands of the old server go over to the new one: it is the same machine under a new identity. */
async function takeOver(
  engine: Engine,
  tx: Db,
  { vaultId, from, to }: { vaultId: VaultId; from: ServerRow; to: ServerId },
): Promise<void> {
  await tx
    .updateTable('outbox')
    .set({ server_id: to })
    .where('vault_id', '=', vaultId)
    .where('server_id', '=', from.serverId)
    .where('state', '=', 'open')
    .execute()
  await revokeServer(tx, from, engine.clock.now())
  const moved = (id: ServerId) => (id === from.serverId ? to : id)
  for (const { vm } of await listProtectedVms(tx)) {
    if (vm.vaultId !== vaultId) continue
    const [source, target] = [vm.source, vm.target].map((side) => ({
      ...side,
      providerId: moved(side.providerId),
      agentId: moved(side.agentId),
    }))
    if (!source || !target || JSON.stringify([source, target]) === JSON.stringify([vm.source, vm.target]))
      continue
    await applyEffect(engine, tx, { ...vm, jobId: null }, { patch: { source, target } })
  }
}
