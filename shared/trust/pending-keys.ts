/**
 * Keys of a registration whose answer has not arrived (`identity.pending.json`, mode 0600). A repeated `register` uses
 * them again, so that the coordinator recognises the request and no second server appears (I4).
 */
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { fsyncFolder } from '../durable-file.ts'
import { type VaultId, vaultId } from '../ids.ts'
import { generateKeys, keysFromSecret, type ServerKeys } from './keys.ts'
import { parseSecretJson, readSecretFile, writeSecretFile } from './secret-file.ts'

const pendingSchema = z.strictObject({
  vaultId,
  kind: z.enum(['provider', 'agent']),
  name: z.string(),
  secretKey: z.base64().length(88),
})

/** What is being registered; keys are used again only for the very same. */
export interface PendingRegistration {
  readonly vaultId: VaultId
  readonly kind: 'provider' | 'agent'
  readonly name: string
}

export function pendingKeysPath(dataDir: string): string {
  return join(dataDir, 'identity.pending.json')
}

/** The keys of an earlier, unfinished try, or new ones; on disk before they are returned. */
export function ensurePendingKeys(dataDir: string, registration: PendingRegistration): ServerKeys {
  const path = pendingKeysPath(dataDir)
  const text = readSecretFile(path)
  // A damaged file is worth nothing to anyone: new keys replace it.
  const found = text === undefined ? undefined : pendingSchema.safeParse(parseSecretJson(text)).data
  const { vaultId, kind, name } = registration
  if (found && found.vaultId === vaultId && found.kind === kind && found.name === name)
    return keysFromSecret(Buffer.from(found.secretKey, 'base64'))
  const keys = generateKeys()
  const secretKey = Buffer.from(keys.secretKey).toString('base64')
  writeSecretFile(path, `${JSON.stringify({ vaultId, kind, name, secretKey })}\n`)
  return keys
}

/** Repeatable. */
export function dropPendingKeys(dataDir: string): void {
  rmSync(pendingKeysPath(dataDir), { force: true })
  fsyncFolder(dataDir)
}
