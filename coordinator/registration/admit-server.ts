/** Decides about one registration. TLS has shown that the sender holds the key of *a* vault certificate. */
import { randomUUID } from 'node:crypto'
import type { Endpoint } from '#shared/config.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { serverId } from '#shared/ids.ts'
import { issueMembership } from '#shared/trust/membership.ts'
import {
  isProven,
  type RegistrationReply,
  type RegistrationRequest,
} from '#shared/trust/registration-protocol.ts'
import { registrationLimits } from '#shared/trust/trust-limits.ts'
import { checkVaultCertificate } from '#shared/trust/vault-certificate.ts'
import { judgeToken } from './token.ts'
import type { RecordOutcome, RegistrationVault, VaultTrustSource } from './trust-source.ts'
import type { VaultKey } from './vault-key.ts'

export interface Connection {
  /** SHA-256 of the certificate the client authenticated with. */
  readonly clientThumbprint: string
  readonly exporter: Uint8Array
}

export interface AdmissionContext {
  readonly vaults: VaultTrustSource
  readonly coordinatorCertificatePem: string
  readonly channelAddresses: readonly Endpoint[]
  readonly nowMs: number
}

export interface Admission {
  readonly reply: RegistrationReply
  readonly outcome: Exclude<RecordOutcome, { outcome: 'name-taken' }>
}

/** Every refusal is a HotsiteError with its own code; nothing is recorded unless all checks passed. */
export async function admitServer(
  request: RegistrationRequest,
  connection: Connection,
  context: AdmissionContext,
): Promise<Admission> {
  const { vaults, nowMs } = context
  const vault = await vaults.findVault(request.vaultId)
  if (!vault)
    throw new HotsiteError('registration-vault-unknown', `this coordinator has no vault ${request.vaultId}`)
  ensureCertificateOfVault(vault, connection.clientThumbprint, nowMs)
  const key = vaults.vaultKey(vault.vaultId)
  ensureToken(key, { token: request.token, vaultName: vault.name, nowMs })
  ensureClocksAgree(request.nowMs, nowMs)
  if (!isProven(request, connection.exporter))
    throw new HotsiteError(
      'registration-proof-invalid',
      'the request is not signed for this connection by the key it brings',
    )
  const publicKey = Uint8Array.from(Buffer.from(request.publicKey, 'base64'))
  const membershipExpiresAtMs = nowMs + registrationLimits.membershipLifetimeMs
  const outcome = await vaults.recordServer({
    vaultId: vault.vaultId,
    serverId: serverId.parse(randomUUID()),
    kind: request.kind,
    name: request.name,
    host: request.host,
    publicKey,
    generation: key.generation,
    registeredAtMs: nowMs,
    membershipExpiresAtMs,
    replace: request.replace,
  })
  if (outcome.outcome === 'name-taken') throw nameTaken(request, vault, outcome.existing)
  const membership = issueMembership(
    {
      vaultId: vault.vaultId,
      serverId: outcome.serverId,
      kind: request.kind,
      name: request.name,
      publicKey,
      issuedAtMs: nowMs,
      expiresAtMs: membershipExpiresAtMs,
      generation: key.generation,
    },
    key.secretKey,
  )
  return { outcome, reply: replyOf(outcome, membership, context) }
}

function replyOf(
  outcome: Admission['outcome'],
  membership: Uint8Array,
  context: AdmissionContext,
): RegistrationReply {
  return {
    serverId: outcome.serverId,
    membership: Buffer.from(membership).toString('base64'),
    coordinatorCertificatePem: context.coordinatorCertificatePem,
    channelAddresses: [...context.channelAddresses],
  }
}

/** A coordinator may hold several vaults, and TLS accepts the certificates of all of them. */
function ensureCertificateOfVault(vault: RegistrationVault, clientThumbprint: string, nowMs: number): void {
  if (vault.certificatePem === null)
    throw new HotsiteError('vault-certificate-missing', `vault ${vault.name} has no certificate`)
  const certificate = checkVaultCertificate(vault.certificatePem, nowMs)
  if (certificate.thumbprint === clientThumbprint) return
  throw new HotsiteError(
    'registration-certificate-refused',
    `the certificate ${clientThumbprint} is not the one of vault ${vault.name}, which is ${certificate.thumbprint}`,
    { details: { given: clientThumbprint, registered: certificate.thumbprint } },
  )
}

function ensureToken(
  key: VaultKey,
  { token, vaultName, nowMs }: { token: string; vaultName: string; nowMs: number },
): void {
  const verdict = judgeToken(key, token, nowMs)
  if (verdict === 'valid') return
  if (verdict === 'expired')
    throw new HotsiteError(
      'credentials-expired',
      'the registration token has expired by the clock of the coordinator',
    )
  if (verdict === 'older-generation')
    throw new HotsiteError(
      'credentials-generation',
      `the registration file was made before the key of vault ${vaultName} was regenerated`,
      { details: { generation: key.generation } },
    )
  throw new HotsiteError(
    'registration-token-invalid',
    `vault ${vaultName} did not issue the token of this registration file`,
  )
}

function ensureClocksAgree(serverNowMs: number, coordinatorNowMs: number): void {
  const skewMs = serverNowMs - coordinatorNowMs
  if (Math.abs(skewMs) <= registrationLimits.maxClockSkewMs) return
  const seconds = Math.round(Math.abs(skewMs) / 1000)
  throw new HotsiteError(
    'clock-skew',
    `the clock of this server is ${seconds} s ${skewMs > 0 ? 'ahead of' : 'behind'} the coordinator's`,
    { details: { skewMs } },
  )
}

function nameTaken(
  request: RegistrationRequest,
  vault: RegistrationVault,
  existing: { serverId: string; registeredAtMs: number },
): HotsiteError {
  const since = new Date(existing.registeredAtMs).toISOString()
  return new HotsiteError(
    'server-name-taken',
    `${request.kind} ${request.name} is registered in vault ${vault.name} since ${since} as ${existing.serverId}`,
    { details: { existingServerId: existing.serverId, registeredAtMs: existing.registeredAtMs } },
  )
}
