/** `register` on a server: from a credentials file and the vault certificate to an identity in the data folder. */
import type { Clock } from '../clock.ts'
import { lockDataDir } from '../data-dir.ts'
import { HotsiteError } from '../errors/hotsite-error.ts'
import { type Credentials, readCredentials } from './credentials-file.ts'
import { findIdentity, identityPath, type ServerIdentity, saveIdentity } from './identity-store.ts'
import { type KeyAndCertificate, openKeyAndCertificate } from './key-and-certificate.ts'
import type { ServerKeys } from './keys.ts'
import { peekMembership, verifyMembership } from './membership.ts'
import { renewalDueAtMs } from './membership-renewal.ts'
import { dropPendingKeys, ensurePendingKeys } from './pending-keys.ts'
import { type RegistrationTarget, requestRegistration } from './registration-connection.ts'
import { type RegistrationReply, type RegistrationRequest, signRequest } from './registration-protocol.ts'
import { registrationLimits } from './trust-limits.ts'
import { checkVaultCertificate } from './vault-certificate.ts'

export interface RegisterServerOptions {
  readonly credentialsPath: string
  readonly keyAndCertificate: KeyAndCertificate
  readonly kind: 'provider' | 'agent'
  /** The server as people will see it. */
  readonly name: string
  /** Its host name. */
  readonly host: string
  readonly dataDir: string
  readonly clock: Clock
  /** Give up the identity in the data folder, and revoke the server of this name and kind in the vault. */
  readonly replace?: boolean
  /** For each step of each attempt. */
  readonly timeoutMs?: number
}

/**
 * Every way this can fail is a HotsiteError with its own code (docs/security.md lists them); the data folder then holds
 * what it held before. Safe to repeat: an answer lost on the way leads to the same server, not to a second one.
 */
export async function registerServer(options: RegisterServerOptions): Promise<ServerIdentity> {
  const { clock, dataDir, credentialsPath, timeoutMs = registrationLimits.stepTimeoutMs } = options
  const credentials = readCredentials(credentialsPath, clock.now())
  const vaultKeyPair = openKeyAndCertificate(options.keyAndCertificate)
  checkVaultCertificate(vaultKeyPair.certificatePem, clock.now())
  // A daemon would go on with the identity it has read, and a second registration would write keys of its own.
  using _lock = lockDataDir(dataDir)
  const keys = keysToRegister(options, credentials)
  const { coordinatorCertificatePem, vaultCertificateThumbprint } = credentials
  const target = { coordinatorCertificatePem, vaultCertificateThumbprint, vaultKeyPair, timeoutMs }
  const reply = await requestAtAnyAddress(credentials, target, (exporter) =>
    requestOf({ options, credentials, keys, exporter }),
  )
  const identity = identityOf({ options, credentials, keys, reply })
  saveIdentity(dataDir, identity)
  dropPendingKeys(dataDir)
  return identity
}

/**
 * A server whose membership is void because the vault key was regenerated, or which ends soon, keeps its keys, and so its
 * id and all that hangs on it. Otherwise an identity in the data folder is only given up on request.
 */
function keysToRegister(options: RegisterServerOptions, credentials: Credentials): ServerKeys {
  const { dataDir, kind, name, clock, replace = false } = options
  const existing = findIdentity(dataDir)
  if (!existing || replace) return ensurePendingKeys(dataDir, { vaultId: credentials.vaultId, kind, name })
  const isSame = existing.vaultId === credentials.vaultId && existing.kind === kind && existing.name === name
  const isVoid = existing.generation < credentials.generation
  if (isSame && (isVoid || clock.now() >= renewalDueAtMs(peekMembership(existing.membership))))
    return existing.keys
  throw new HotsiteError(
    'already-registered',
    `${identityPath(dataDir)} is the identity of ${existing.kind} ${existing.name} in vault ${existing.vaultName}`,
    { details: { vaultId: existing.vaultId, serverId: existing.serverId } },
  )
}

function requestOf(given: {
  options: RegisterServerOptions
  credentials: Credentials
  keys: ServerKeys
  exporter: Uint8Array
}): RegistrationRequest {
  const { options, credentials, keys, exporter } = given
  const request = {
    vaultId: credentials.vaultId,
    token: credentials.token,
    kind: options.kind,
    name: options.name,
    host: options.host,
    publicKey: Buffer.from(keys.publicKey).toString('base64'),
    replace: options.replace ?? false,
    nowMs: options.clock.now(),
  }
  return signRequest(request, { exporter, secretKey: keys.secretKey })
}

async function requestAtAnyAddress(
  credentials: Credentials,
  target: Omit<RegistrationTarget, 'address'>,
  makeRequest: (exporter: Uint8Array) => RegistrationRequest,
): Promise<RegistrationReply> {
  const reasons: string[] = []
  for (const address of credentials.registrationUrls) {
    try {
      return await requestRegistration({ ...target, address }, makeRequest)
    } catch (error) {
      if (!(error instanceof HotsiteError) || error.code !== 'coordinator-unreachable') throw error
      reasons.push(error.message)
    }
  }
  throw new HotsiteError(
    'coordinator-unreachable',
    `the coordinator of vault ${credentials.vaultName} does not answer (${reasons.join('; ')})`,
    { details: { tried: reasons } },
  )
}

/** The answer came from the pinned coordinator; what it says is checked all the same before it becomes our identity. */
function identityOf(given: {
  options: RegisterServerOptions
  credentials: Credentials
  keys: ServerKeys
  reply: RegistrationReply
}): ServerIdentity {
  const { options, credentials, keys, reply } = given
  const { vaultId, vaultName, vaultPublicKey, generation } = credentials
  const encoded = Uint8Array.from(Buffer.from(reply.membership, 'base64'))
  const nowMs = options.clock.now()
  const membership = verifyMembership({
    encoded,
    vaultPublicKey,
    nowMs,
    isRevoked: () => false,
    vaultId,
    generation,
  })
  const isOurs =
    Buffer.from(membership.publicKey).equals(keys.publicKey) &&
    membership.serverId === reply.serverId &&
    membership.kind === options.kind &&
    membership.name === options.name
  if (!isOurs)
    throw new HotsiteError(
      'membership-invalid',
      'the coordinator answered with the membership of another server',
    )
  return {
    vaultId,
    vaultName,
    serverId: membership.serverId,
    kind: options.kind,
    name: membership.name,
    keys,
    membership: encoded,
    vaultPublicKey,
    generation,
    coordinatorCertificatePem: reply.coordinatorCertificatePem,
    channelAddresses: reply.channelAddresses,
    registeredAtMs: nowMs,
  }
}
