/** A coordinator's side of registration in memory, for tests of both sides; the real one answers from its database. */
import type { LogFields, Logger } from '#shared/log.ts'
import type { RecordOutcome, RegistrationVault, ServerToRecord, VaultTrustSource } from '../trust-source.ts'
import type { VaultKey } from '../vault-key.ts'

export interface MemoryVault extends RegistrationVault {
  readonly key: VaultKey
}

export class MemoryTrustSource implements VaultTrustSource {
  readonly vaults: MemoryVault[] = []
  readonly servers: ServerToRecord[] = []
  readonly revoked: string[] = []
  /** Set to make the next look at the vaults fail, as a database would. */
  failure: Error | undefined

  async listVaultCertificates(): Promise<readonly string[]> {
    return this.vaults.flatMap((vault) => vault.certificatePem ?? [])
  }

  async findVault(vaultId: string): Promise<RegistrationVault | undefined> {
    if (this.failure) throw this.failure
    return this.vaults.find((vault) => vault.vaultId === vaultId)
  }

  vaultKey(vaultId: string): VaultKey {
    const vault = this.vaults.find((one) => one.vaultId === vaultId)
    if (!vault) throw new Error(`no vault ${vaultId}`)
    return vault.key
  }

  async recordServer(server: ServerToRecord): Promise<RecordOutcome> {
    const existing = this.servers.find(
      (one) =>
        one.vaultId === server.vaultId &&
        one.kind === server.kind &&
        one.name === server.name &&
        !this.revoked.includes(one.serverId),
    )
    if (existing && Buffer.from(existing.publicKey).equals(server.publicKey))
      return { outcome: 'repeated', serverId: existing.serverId }
    if (existing && !server.replace) return { outcome: 'name-taken', existing }
    this.servers.push(server)
    if (!existing) return { outcome: 'recorded', serverId: server.serverId }
    this.revoked.push(existing.serverId)
    return { outcome: 'replaced', serverId: server.serverId, revokedServerId: existing.serverId }
  }

  replaceVault(vaultId: string, change: Partial<MemoryVault>): void {
    const index = this.vaults.findIndex((vault) => vault.vaultId === vaultId)
    const vault = this.vaults[index]
    if (vault) this.vaults[index] = { ...vault, ...change }
  }
}

/** A log that can be searched. */
export function collectingLog(lines: string[]): Logger {
  const line = (event: string, fields: LogFields = {}) => {
    const { error } = fields
    lines.push(`${event} ${JSON.stringify(fields)} ${error instanceof Error ? error.stack : ''}`)
  }
  return { debug: line, info: line, warn: line, error: line, with: () => collectingLog(lines) }
}
