import type { Endpoint } from '#shared/config.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { issueCredentials } from '#shared/trust/credentials-file.ts'
import { registrationLimits } from '#shared/trust/trust-limits.ts'
import { checkVaultCertificate } from '#shared/trust/vault-certificate.ts'
import { issueToken } from './token.ts'
import type { VaultKey } from './vault-key.ts'

export interface VaultCredentialsInput {
  readonly key: VaultKey
  readonly vaultName: string
  /** null: none was uploaded. */
  readonly vaultCertificatePem: string | null
  readonly registrationUrls: readonly Endpoint[]
  readonly channelAddresses: readonly Endpoint[]
  readonly coordinatorCertificatePem: string
  readonly nowMs: number
}

export interface IssuedCredentials {
  readonly fileName: string
  /** Holds a secret token. */
  readonly content: string
  readonly expiresAtMs: number
}

/**
 * The registration file of a vault, with a new token. Throws `vault-certificate-missing`, or the broken rule of the vault
 * certificate (expired, most likely): a file that cannot lead to a registration is not made.
 */
export function issueVaultCredentials(input: VaultCredentialsInput): IssuedCredentials {
  const { key, vaultName, vaultCertificatePem, nowMs } = input
  if (vaultCertificatePem === null)
    throw new HotsiteError('vault-certificate-missing', `vault ${vaultName} has no certificate`)
  const { thumbprint } = checkVaultCertificate(vaultCertificatePem, nowMs)
  const expiresAtMs = nowMs + registrationLimits.credentialsLifetimeMs
  const content = issueCredentials({
    signer: key,
    vaultName,
    registrationUrls: [...input.registrationUrls],
    channelAddresses: [...input.channelAddresses],
    coordinatorCertificatePem: input.coordinatorCertificatePem,
    vaultCertificateThumbprint: thumbprint,
    token: issueToken(key, { expiresAtMs }),
    issuedAtMs: nowMs,
    expiresAtMs,
  })
  const day = new Date(nowMs).toISOString().slice(0, 10)
  const safeName = vaultName.replace(/[^A-Za-z0-9._-]+/g, '_')
  return { fileName: `${safeName}_${day}.hotsite-credentials.json`, content, expiresAtMs }
}
