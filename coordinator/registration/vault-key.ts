/**
 * The key of a vault: `<dataDir>/vaults/<vaultId>/key.json`, mode 0600. It is in no database, log or reply (I15).
 * Whoever has it can make members of the vault; whoever loses it registers every server again.
 */
import { join } from 'node:path'
import { z } from 'zod'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { type VaultId, vaultId } from '#shared/ids.ts'
import { generateKeys, keysFromSecret } from '#shared/trust/keys.ts'
import {
  damagedSecretFile,
  parseSecretJson,
  readSecretFile,
  writeSecretFile,
} from '#shared/trust/secret-file.ts'

export interface VaultKey {
  readonly vaultId: VaultId
  /** 1, and one more with each regeneration. Documents signed under an older one are void. */
  readonly generation: number
  readonly publicKey: Uint8Array
  readonly secretKey: Uint8Array
  readonly createdAtMs: number
}

const keySchema = z.strictObject({
  format: z.literal('hotsite-vault-key'),
  version: z.literal(1),
  vaultId,
  generation: z.int().positive(),
  secretKey: z.base64().length(88),
  createdAtMs: z.int(),
})

interface VaultKeyRequest {
  readonly dataDir: string
  readonly vaultId: VaultId
  readonly nowMs: number
}

export function vaultKeyPath(dataDir: string, vaultId: VaultId): string {
  return join(dataDir, 'vaults', vaultId, 'key.json')
}

/**
 * The key of a new vault. Repeatable: a key that is there already is kept and returned, so that a vault whose creation was
 * cut off by a crash can be created again.
 */
export function ensureVaultKey(request: VaultKeyRequest): VaultKey {
  return findVaultKey(request.dataDir, request.vaultId) ?? writeNewKey(request, 1)
}

/** Throws `vault-key-missing`, `secret-file-exposed`, `secret-file-damaged`. */
export function loadVaultKey(dataDir: string, vaultId: VaultId): VaultKey {
  const key = findVaultKey(dataDir, vaultId)
  if (!key)
    throw new HotsiteError('vault-key-missing', `there is no ${vaultKeyPath(dataDir, vaultId)}`, {
      details: { vaultId },
    })
  return key
}

/**
 * A new key of the next generation; every membership, ticket and credentials file made before is void from now on.
 * `previousGeneration` is the newest one the caller knows of (the vault's row): also when the key file is lost, no
 * generation is used twice.
 */
export function regenerateVaultKey(request: VaultKeyRequest & { previousGeneration: number }): VaultKey {
  const stored = findVaultKey(request.dataDir, request.vaultId)?.generation ?? 0
  return writeNewKey(request, Math.max(stored, request.previousGeneration) + 1)
}

function findVaultKey(dataDir: string, id: VaultId): VaultKey | undefined {
  const path = vaultKeyPath(dataDir, id)
  const text = readSecretFile(path)
  if (text === undefined) return undefined
  const parsed = keySchema.safeParse(parseSecretJson(text))
  if (!parsed.success) throw damagedSecretFile(path, 'it is not a vault key of version 1')
  if (parsed.data.vaultId !== id)
    throw damagedSecretFile(path, `it is the key of vault ${parsed.data.vaultId}`)
  const { publicKey, secretKey } = keysFromSecret(Buffer.from(parsed.data.secretKey, 'base64'))
  const { generation, createdAtMs } = parsed.data
  return { vaultId: id, generation, publicKey, secretKey, createdAtMs }
}

function writeNewKey({ dataDir, vaultId, nowMs }: VaultKeyRequest, generation: number): VaultKey {
  const { publicKey, secretKey } = generateKeys()
  const document: z.input<typeof keySchema> = {
    format: 'hotsite-vault-key',
    version: 1,
    vaultId,
    generation,
    secretKey: Buffer.from(secretKey).toString('base64'),
    createdAtMs: nowMs,
  }
  writeSecretFile(vaultKeyPath(dataDir, vaultId), `${JSON.stringify(document, null, 2)}\n`)
  return { vaultId, generation, publicKey, secretKey, createdAtMs: nowMs }
}
