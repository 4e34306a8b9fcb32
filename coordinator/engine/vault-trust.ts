/** Whom the channel listener believes: memory, because a handshake cannot wait for a query; filled from the database. */
import { isDeepStrictEqual } from 'node:util'
import type { VaultTrust } from '#shared/channel/handshake.ts'
import type { Clock } from '#shared/clock.ts'
import { type ServerId, serverId, type VaultId } from '#shared/ids.ts'
import { type CommandRequest, MAX_REVOKED_SERVERS } from '#shared/messages/commands.ts'
import { generateKeys } from '#shared/trust/keys.ts'
import { issueMembership } from '#shared/trust/membership.ts'
import { registrationLimits } from '#shared/trust/trust-limits.ts'
import { loadVaultKey, type VaultKey } from '../registration/vault-key.ts'
import type { Db } from '../store/schema.ts'
import { listAllServers, type ServerRow } from '../store/servers.ts'
import { listVaults } from '../store/vaults.ts'

export interface VaultTrusts {
  trustOf(vaultId: VaultId): VaultTrust | undefined
  /** Throws `vault-key-missing`. */
  key(vaultId: VaultId): VaultKey
  /** What the servers of this vault are to know; the same object until it changes. undefined: no such vault. */
  trustUpdate(vaultId: VaultId): CommandRequest<'trust.update'> | undefined
  /** After every change of a vault, its key or its servers; also renews this coordinator's own memberships. */
  reload(): Promise<void>
}

/**
 * The coordinator's own key pair lives as long as the process: agents know it by its membership, which the vault key signs
 * anew at every start, so there is no second secret to keep.
 */
export function createVaultTrusts({
  db,
  clock,
  dataDir,
}: {
  db: Db
  clock: Clock
  dataDir: string
}): VaultTrusts {
  const own = generateKeys()
  const ownId: ServerId = serverId.parse('coordinator')
  let trusts = new Map<VaultId, VaultTrust>()
  let keys = new Map<VaultId, VaultKey>()
  let updates = new Map<VaultId, CommandRequest<'trust.update'>>()

  function trustFor(key: VaultKey, revoked: ReadonlySet<ServerId>): VaultTrust {
    const issuedAtMs = clock.now()
    const membership = issueMembership(
      {
        vaultId: key.vaultId,
        serverId: ownId,
        kind: 'coordinator',
        name: 'coordinator',
        publicKey: own.publicKey,
        issuedAtMs,
        expiresAtMs: issuedAtMs + registrationLimits.membershipLifetimeMs,
        generation: key.generation,
      },
      key.secretKey,
    )
    return {
      vaultPublicKey: key.publicKey,
      membership,
      keys: own,
      isRevoked: (id) => revoked.has(id),
      generation: key.generation,
    }
  }

  return {
    trustOf: (vaultId) => trusts.get(vaultId),
    trustUpdate: (vaultId) => updates.get(vaultId),
    key: (vaultId) => keys.get(vaultId) ?? loadVaultKey(dataDir, vaultId),
    async reload() {
      const servers = await listAllServers(db)
      const nextTrusts = new Map<VaultId, VaultTrust>()
      const nextKeys = new Map<VaultId, VaultKey>()
      const nextUpdates = new Map<VaultId, CommandRequest<'trust.update'>>()
      for (const { vaultId } of await listVaults(db)) {
        const key = loadVaultKey(dataDir, vaultId)
        const gone = servers.filter((row) => row.vaultId === vaultId && row.revokedAtMs !== null)
        const update = trustUpdateOf(key, gone, clock.now())
        const before = updates.get(vaultId)
        nextUpdates.set(vaultId, before && isDeepStrictEqual(before, update) ? before : update)
        nextKeys.set(vaultId, key)
        nextTrusts.set(vaultId, trustFor(key, new Set(gone.map((row) => row.serverId))))
      }
      trusts = nextTrusts
      keys = nextKeys
      updates = nextUpdates
    },
  }
}

/** A membership that ended, or that another vault key signed, is refused for that: the list need not hold it for ever. */
function trustUpdateOf(
  { generation }: VaultKey,
  gone: readonly ServerRow[],
  nowMs: number,
): CommandRequest<'trust.update'> {
  const revokedServerIds = gone
    .filter((row) => row.generation === generation && row.membershipExpiresAtMs > nowMs)
    .toSorted((a, b) => (b.revokedAtMs ?? 0) - (a.revokedAtMs ?? 0))
    .slice(0, MAX_REVOKED_SERVERS)
    .map(({ serverId: id }) => id)
  return { revokedServerIds, generation }
}
