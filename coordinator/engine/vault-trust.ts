/** Whom the channel listener believes: memory, because a handshake cannot wait for a query; filled from the database. */
import type { VaultTrust } from '#shared/channel/handshake.ts'
import type { Clock } from '#shared/clock.ts'
import { type ServerId, serverId, type VaultId } from '#shared/ids.ts'
import { generateKeys } from '#shared/trust/keys.ts'
import { issueMembership } from '#shared/trust/membership.ts'
import { registrationLimits } from '#shared/trust/trust-limits.ts'
import { loadVaultKey, type VaultKey } from '../registration/vault-key.ts'
import type { Db } from '../store/schema.ts'
import { listAllServers } from '../store/servers.ts'
import { listVaults } from '../store/vaults.ts'

export interface VaultTrusts {
  trustOf(vaultId: VaultId): VaultTrust | undefined
  /** Throws `vault-key-missing`. */
  key(vaultId: VaultId): VaultKey
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
    key: (vaultId) => keys.get(vaultId) ?? loadVaultKey(dataDir, vaultId),
    async reload() {
      const servers = await listAllServers(db)
      const nextTrusts = new Map<VaultId, VaultTrust>()
      const nextKeys = new Map<VaultId, VaultKey>()
      for (const { vaultId } of await listVaults(db)) {
        const key = loadVaultKey(dataDir, vaultId)
        const gone = servers.filter((row) => row.vaultId === vaultId && row.revokedAtMs !== null)
        nextKeys.set(vaultId, key)
        nextTrusts.set(vaultId, trustFor(key, new Set(gone.map((row) => row.serverId))))
      }
      trusts = nextTrusts
      keys = nextKeys
    },
  }
}
