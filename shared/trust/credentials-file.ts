/**
 * The registration file an administrator carries from the coordinator to a server. It tells where the coordinator is and
 * how to know it, and holds a token. The signature guards against damage and editing; it is checked with the key in the
 * file itself, so whoever can swap the whole file can send a server elsewhere: carry it over a trusted way.
 */
import { readFileSync } from 'node:fs'
import { z } from 'zod'
import { endpoint } from '../config.ts'
import { HotsiteError } from '../errors/hotsite-error.ts'
import { type VaultId, vaultId } from '../ids.ts'
import { canonicalJson } from './canonical-json.ts'
import { sign, verify } from './keys.ts'
import { signedBytes } from './signed-document.ts'
import { registrationLimits } from './trust-limits.ts'

const format = 'hotsite-credentials'
const version = 1

const credentialsSchema = z.strictObject({
  format: z.literal(format),
  version: z.literal(version),
  vaultId,
  vaultName: z.string().min(1),
  /** Where `register` connects to; tried in order. */
  registrationUrls: z.array(endpoint).min(1).max(16),
  /** Where the daemons connect to afterwards; tried in order. */
  channelAddresses: z.array(endpoint).min(1).max(16),
  /** The only certificate accepted from the coordinator (a pin). */
  coordinatorCertificatePem: z.string().startsWith('-----BEGIN CERTIFICATE-----'),
  /** SHA-256 of the vault certificate at the time of issue: lets a wrong .pfx be named before anything is sent. */
  vaultCertificateThumbprint: z.string(),
  vaultPublicKey: z.base64(),
  /** A secret, for any number of servers until it expires. */
  token: z.string().min(1).max(1000),
  issuedAtMs: z.int(),
  expiresAtMs: z.int(),
  /** Of the vault key. */
  generation: z.int().positive(),
  signature: z.base64(),
})
type CredentialsDocument = z.infer<typeof credentialsSchema>

export interface Credentials
  extends Omit<CredentialsDocument, 'format' | 'version' | 'signature' | 'vaultPublicKey'> {
  readonly vaultPublicKey: Uint8Array
}

/** What signs for a vault: the part of the coordinator's vault key that signing needs. */
export interface VaultSigner {
  readonly vaultId: VaultId
  readonly generation: number
  readonly publicKey: Uint8Array
  readonly secretKey: Uint8Array
}

export interface IssueCredentialsInput
  extends Pick<
    Credentials,
    | 'vaultName'
    | 'registrationUrls'
    | 'channelAddresses'
    | 'coordinatorCertificatePem'
    | 'vaultCertificateThumbprint'
    | 'token'
    | 'issuedAtMs'
    | 'expiresAtMs'
  > {
  readonly signer: VaultSigner
}

/** The text of the file. It holds a secret: write it with mode 0600. */
export function issueCredentials(input: IssueCredentialsInput): string {
  const { signer, ...given } = input
  const document = {
    format,
    version,
    vaultId: signer.vaultId,
    ...given,
    vaultPublicKey: Buffer.from(signer.publicKey).toString('base64'),
    generation: signer.generation,
  }
  const signature = Buffer.from(sign(bytesToSign(document), signer.secretKey)).toString('base64')
  return `${JSON.stringify({ ...document, signature }, null, 2)}\n`
}

/** Reads and checks a file; errors as `parseCredentials`, and `credentials-not-a-credentials-file` if it cannot be read. */
export function readCredentials(path: string, nowMs: number): Credentials {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    throw new HotsiteError(
      'credentials-not-a-credentials-file',
      `cannot read ${path}: ${(error as Error).message}`,
      { cause: error },
    )
  }
  return parseCredentials(text, { nowMs, name: path })
}

/**
 * Throws `credentials-not-a-credentials-file`, `credentials-version-unknown`, `credentials-altered`,
 * `credentials-expired`, or `clock-skew` for a file from the future. `name` is how messages call the file.
 */
export function parseCredentials(
  text: string,
  { nowMs, name }: { nowMs: number; name: string },
): Credentials {
  const document = parseDocument(text, name)
  const { format: _format, version: _version, signature, vaultPublicKey, ...fields } = document
  const publicKey = Buffer.from(vaultPublicKey, 'base64')
  const { signature: _signature, ...signed } = document
  if (!verify(bytesToSign(signed), Buffer.from(signature, 'base64'), publicKey))
    throw new HotsiteError('credentials-altered', `the signature of ${name} does not fit its content`)
  ensureInForce(fields, { nowMs, name })
  return { ...fields, vaultPublicKey: Uint8Array.from(publicKey) }
}

function bytesToSign(document: object): Uint8Array {
  return signedBytes('credentials', Buffer.from(canonicalJson(document)))
}

function parseDocument(text: string, name: string): CredentialsDocument {
  const raw = parseJson(text)
  if (raw?.['format'] !== format)
    throw new HotsiteError(
      'credentials-not-a-credentials-file',
      `${name} is not a registration file of Hotsite`,
    )
  if (raw['version'] !== version)
    throw new HotsiteError(
      'credentials-version-unknown',
      `${name} has version ${String(raw['version'])}; this program reads version ${version}`,
    )
  const parsed = credentialsSchema.safeParse(raw)
  if (parsed.success) return parsed.data
  // Field names only: the offending values may be the token.
  const fields = [...new Set(parsed.error.issues.map((issue) => issue.path.join('.') || 'the set of fields'))]
  throw new HotsiteError('credentials-altered', `${name} does not have its form: ${fields.join(', ')}`, {
    details: { fields },
  })
}

function parseJson(text: string): Record<string, unknown> | undefined {
  try {
    // A byte-order mark is what Windows editors add; it is not part of the document.
    const raw: unknown = JSON.parse(text.replace(/^\uFEFF/, ''))
    return typeof raw === 'object' && raw !== null ? (raw as Record<string, unknown>) : undefined
  } catch {
    return undefined
  }
}

function ensureInForce(
  credentials: { issuedAtMs: number; expiresAtMs: number },
  { nowMs, name }: { nowMs: number; name: string },
): void {
  const here = new Date(nowMs).toISOString()
  if (nowMs >= credentials.expiresAtMs)
    throw new HotsiteError(
      'credentials-expired',
      `${name} expired at ${new Date(credentials.expiresAtMs).toISOString()}; it is ${here} here`,
      { details: { expiresAtMs: credentials.expiresAtMs, nowMs } },
    )
  if (credentials.issuedAtMs - nowMs > registrationLimits.maxClockSkewMs)
    throw new HotsiteError(
      'clock-skew',
      `${name} was made at ${new Date(credentials.issuedAtMs).toISOString()}; it is ${here} here, so the clock of this server is behind`,
      { details: { issuedAtMs: credentials.issuedAtMs, nowMs } },
    )
}
