/**
 * The key a seed is encrypted with. It leaves the coordinator in the commands to the two agents and nowhere else: the row
 * holds it sealed under the vault's secret key, the outbox holds a blank that is filled in as the command is sent, and no
 * log line, event, reply or job ever sees it (I15).
 */
import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { VaultId, VmId } from '#shared/ids.ts'
import type { Db } from '../store/schema.ts'
import { findSealedKey, putSealedKey } from '../store/seed-keys.ts'
import type { Engine } from './engine.ts'

interface Owner {
  readonly vaultId: VaultId
  readonly vmId: VmId
}

const keyBytes = 32
/** AES-256-GCM: 12 bytes of nonce, 16 of tag, then the key. */
const nonceBytes = 12
const tagBytes = 16

/** What stands in the outbox in place of the key. */
export const BLANK_KEY = ''

/** Keeps the key that is there, so that an export that broke off goes on; one nobody can open any more is replaced. */
export async function ensureSeedKey(engine: Engine, db: Db, owner: Owner): Promise<void> {
  const sealed = await findSealedKey(db, owner)
  if (sealed && openSealed(engine, owner, sealed)) return
  const fresh = seal(engine, owner, randomBytes(keyBytes))
  await putSealedKey(db, owner, { sealed: fresh, nowMs: engine.clock.now() })
}

/** Throws `seed-key-lost`. */
export async function seedKeyBase64(engine: Engine, db: Db, owner: Owner): Promise<string> {
  const sealed = await findSealedKey(db, owner)
  const key = sealed && openSealed(engine, owner, sealed)
  if (!key)
    throw new HotsiteError('seed-key-lost', `the key of the seed of VM ${owner.vmId} is not there any more`)
  return key.toString('base64')
}

function sealingKey(engine: Engine, { vaultId, vmId }: Owner): Buffer {
  const secret = engine.vaultSecretKey(vaultId)
  return Buffer.from(hkdfSync('sha256', secret, vmId, 'hotsite seed key 1', keyBytes))
}

const ownerText = ({ vaultId, vmId }: Owner): Buffer => Buffer.from(`${vaultId}/${vmId}`)

function seal(engine: Engine, owner: Owner, key: Buffer): Buffer {
  const nonce = randomBytes(nonceBytes)
  const cipher = createCipheriv('aes-256-gcm', sealingKey(engine, owner), nonce).setAAD(ownerText(owner))
  const sealed = Buffer.concat([cipher.update(key), cipher.final()])
  return Buffer.concat([nonce, cipher.getAuthTag(), sealed])
}

/** undefined: sealed under a vault key that was regenerated since, or damaged. */
function openSealed(engine: Engine, owner: Owner, sealed: Uint8Array): Buffer | undefined {
  if (sealed.length !== nonceBytes + tagBytes + keyBytes) return undefined
  const nonce = sealed.subarray(0, nonceBytes)
  const decipher = createDecipheriv('aes-256-gcm', sealingKey(engine, owner), nonce)
  decipher.setAAD(ownerText(owner)).setAuthTag(sealed.subarray(nonceBytes, nonceBytes + tagBytes))
  try {
    return Buffer.concat([decipher.update(sealed.subarray(nonceBytes + tagBytes)), decipher.final()])
  } catch {
    return undefined
  }
}
