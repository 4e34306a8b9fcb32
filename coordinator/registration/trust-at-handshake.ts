import { createSecureContext, type SecureContext } from 'node:tls'
import type { Logger } from '#shared/log.ts'
import { registrationServerName } from '#shared/trust/registration-protocol.ts'
import type { TlsIdentity } from '#shared/trust/tls-identity.ts'
import type { VaultTrustSource } from './trust-source.ts'

type SniCallback = (serverName: string, done: (error: Error | null, context?: SecureContext) => void) => void

/**
 * Chooses the accepted client certificates at each handshake: the vault certificates in force at that instant.
 *
 * It hangs on the server name because that is the only place where Node (24.x) lets a server accept a leaf certificate
 * issued by an authority it does not know: `allowPartialTrustChain` works in `createSecureContext`, and is dropped by
 * `createServer` and `setSecureContext`. Our client always sends the name; without it nobody is trusted.
 */
export function trustAtHandshake(given: {
  tls: TlsIdentity
  vaults: VaultTrustSource
  log: Logger
}): SniCallback {
  const { tls, vaults, log } = given
  let cached: { key: string; context: SecureContext } | undefined
  const choose = async (): Promise<SecureContext> => {
    const certificates = await vaults.listVaultCertificates()
    const key = certificates.join('\n')
    if (cached?.key === key) return cached.context
    const context = createSecureContext({
      key: tls.keyPem,
      cert: tls.certificatePem,
      minVersion: 'TLSv1.3',
      ca: [...certificates],
      allowPartialTrustChain: true,
    })
    cached = { key, context }
    return context
  }
  return (serverName, done) => {
    if (serverName !== registrationServerName) return done(null)
    choose().then(
      (context) => done(null, context),
      (error: unknown) => {
        log.error('registration.vaults-unreadable', { error })
        done(error instanceof Error ? error : new Error('the vaults cannot be read'))
      },
    )
  }
}
