/**
 * Registration tokens: "hst1.<claims>.<mac>", the MAC under a key derived from the vault key. Nothing is stored, so any
 * number of coordinators that hold the vault key accept them, and regenerating the vault key voids them all.
 */
import { createHmac, hkdfSync, randomBytes, timingSafeEqual } from 'node:crypto'
import { z } from 'zod'
import { vaultId } from '#shared/ids.ts'
import type { VaultKey } from './vault-key.ts'

export type TokenVerdict = 'valid' | 'expired' | 'older-generation' | 'unknown'

const prefix = 'hst1'
const claimsSchema = z.strictObject({
  vaultId,
  generation: z.int(),
  expiresAtMs: z.int(),
  nonce: z.string(),
})

export function issueToken(key: VaultKey, { expiresAtMs }: { expiresAtMs: number }): string {
  const nonce = randomBytes(16).toString('base64url')
  const claims = { vaultId: key.vaultId, generation: key.generation, expiresAtMs, nonce }
  const body = `${prefix}.${Buffer.from(JSON.stringify(claims)).toString('base64url')}`
  return `${body}.${macOf(key, body).toString('base64url')}`
}

export function judgeToken(key: VaultKey, token: string, nowMs: number): TokenVerdict {
  const [head, claimsPart, macPart, ...rest] = token.split('.')
  if (head !== prefix || !claimsPart || !macPart || rest.length > 0) return 'unknown'
  const claims = parseClaims(claimsPart)
  if (!claims || claims.vaultId !== key.vaultId) return 'unknown'
  // The older key is gone, so this claim cannot be checked; it can only refuse, and names the cause better.
  if (claims.generation < key.generation) return 'older-generation'
  const mac = Buffer.from(macPart, 'base64url')
  const expected = macOf(key, `${prefix}.${claimsPart}`)
  if (mac.length !== expected.length || !timingSafeEqual(mac, expected)) return 'unknown'
  return nowMs < claims.expiresAtMs ? 'valid' : 'expired'
}

function parseClaims(part: string) {
  try {
    return claimsSchema.safeParse(JSON.parse(Buffer.from(part, 'base64url').toString())).data
  } catch {
    return undefined
  }
}

function macOf(key: VaultKey, body: string): Buffer {
  const macKey = hkdfSync('sha256', key.secretKey.subarray(0, 32), '', 'hotsite.registration-token.v1', 32)
  return createHmac('sha256', Buffer.from(macKey)).update(body).digest()
}
