/** What registration needs to know of vaults and servers; the coordinator answers it from its database. */
import type { ServerId, VaultId } from '#shared/ids.ts'
import type { VaultKey } from './vault-key.ts'

export interface RegistrationVault {
  readonly vaultId: VaultId
  readonly name: string
  /** null: none was uploaded yet. */
  readonly certificatePem: string | null
}

export interface ServerToRecord {
  readonly vaultId: VaultId
  /** Used when the server is new. */
  readonly serverId: ServerId
  readonly kind: 'provider' | 'agent'
  readonly name: string
  readonly host: string
  /** Ed25519, 32 bytes. */
  readonly publicKey: Uint8Array
  /** Of the vault key that signs the membership. */
  readonly generation: number
  readonly registeredAtMs: number
  readonly membershipExpiresAtMs: number
  /** Revoke the server of this name and kind in the vault, if there is one, and record this one. */
  readonly replace: boolean
}

export type RecordOutcome =
  | { readonly outcome: 'recorded'; readonly serverId: ServerId }
  /**
   * The same public key is recorded under this name and kind and not revoked: the request arrived twice (I4), or the
   * server registers again because the vault key was regenerated or its membership ends soon. It keeps its id; generation and expiry are brought up to date.
   */
  | { readonly outcome: 'repeated'; readonly serverId: ServerId }
  /** The earlier server is revoked and its channel dropped. */
  | { readonly outcome: 'replaced'; readonly serverId: ServerId; readonly revokedServerId: ServerId }
  | {
      readonly outcome: 'name-taken'
      readonly existing: { readonly serverId: ServerId; readonly registeredAtMs: number }
    }

export interface VaultTrustSource {
  /** Asked at every TLS handshake, so that a replaced certificate is out of force at once. */
  listVaultCertificates(): Promise<readonly string[]>
  findVault(vaultId: VaultId): Promise<RegistrationVault | undefined>
  /** `loadVaultKey`: throws when the key file is gone. */
  vaultKey(vaultId: VaultId): VaultKey
  /** One transaction. A revoked server of the same name does not take the name. */
  recordServer(server: ServerToRecord): Promise<RecordOutcome>
}
