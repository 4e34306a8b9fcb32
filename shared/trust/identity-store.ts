/** What a registered server is: `identity.json` (mode 0600) in its data folder, written by `register`. */
import { join } from 'node:path'
import { z } from 'zod'
import { type Endpoint, endpoint } from '../config.ts'
import { HotsiteError } from '../errors/hotsite-error.ts'
import { type ServerId, serverId, type VaultId, vaultId } from '../ids.ts'
import { keysFromSecret, type ServerKeys } from './keys.ts'
import { damagedSecretFile, parseSecretJson, readSecretFile, writeSecretFile } from './secret-file.ts'

export interface ServerIdentity {
  readonly vaultId: VaultId
  readonly vaultName: string
  readonly serverId: ServerId
  readonly kind: 'provider' | 'agent'
  readonly name: string
  readonly keys: ServerKeys
  /** Encoded and signed by the vault key: what the channel's handshake shows. */
  readonly membership: Uint8Array
  readonly vaultPublicKey: Uint8Array
  /** Of the vault key. */
  readonly generation: number
  /** The only certificate accepted from the coordinator. */
  readonly coordinatorCertificatePem: string
  /** Tried in order. */
  readonly channelAddresses: readonly Endpoint[]
  readonly registeredAtMs: number
}

const format = 'hotsite-identity'
const version = 1

const identitySchema = z.strictObject({
  format: z.literal(format),
  version: z.literal(version),
  vaultId,
  vaultName: z.string(),
  serverId,
  kind: z.enum(['provider', 'agent']),
  name: z.string(),
  secretKey: z.base64().length(88),
  membership: z.base64().min(1),
  vaultPublicKey: z.base64().length(44),
  generation: z.int().positive(),
  coordinatorCertificatePem: z.string(),
  channelAddresses: z.array(endpoint).min(1),
  registeredAtMs: z.int(),
})

export function identityPath(dataDir: string): string {
  return join(dataDir, 'identity.json')
}

/** Throws `not-registered`, `secret-file-exposed`, `secret-file-damaged`, `data-version-unknown`. */
export function loadIdentity(dataDir: string): ServerIdentity {
  const identity = findIdentity(dataDir)
  if (!identity) throw new HotsiteError('not-registered', `there is no ${identityPath(dataDir)}`)
  return identity
}

/** undefined: this data folder was never registered. */
export function findIdentity(dataDir: string): ServerIdentity | undefined {
  const path = identityPath(dataDir)
  const text = readSecretFile(path)
  if (text === undefined) return undefined
  const raw = parseSecretJson(text)
  const found = typeof raw === 'object' && raw !== null && 'version' in raw ? raw.version : undefined
  if (typeof found === 'number' && found > version)
    throw new HotsiteError(
      'data-version-unknown',
      `${path} has version ${found}; this program reads version ${version}`,
    )
  const parsed = identitySchema.safeParse(raw)
  if (!parsed.success) {
    const fields = parsed.error.issues.map((issue) => issue.path.join('.') || 'its set of fields')
    throw damagedSecretFile(path, `these do not have their form: ${fields.join(', ')}`)
  }
  const { format: _format, version: _version, secretKey, membership, vaultPublicKey, ...fields } = parsed.data
  return {
    ...fields,
    keys: keysFromSecret(Buffer.from(secretKey, 'base64')),
    membership: Uint8Array.from(Buffer.from(membership, 'base64')),
    vaultPublicKey: Uint8Array.from(Buffer.from(vaultPublicKey, 'base64')),
  }
}

/** Atomic and durable: after a crash the file is the old identity or the new one. */
export function saveIdentity(dataDir: string, identity: ServerIdentity): void {
  const { keys, membership, vaultPublicKey, ...fields } = identity
  const document: z.input<typeof identitySchema> = {
    format,
    version,
    ...fields,
    channelAddresses: [...fields.channelAddresses],
    secretKey: base64(keys.secretKey),
    membership: base64(membership),
    vaultPublicKey: base64(vaultPublicKey),
  }
  writeSecretFile(identityPath(dataDir), `${JSON.stringify(document, null, 2)}\n`)
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64')
}
