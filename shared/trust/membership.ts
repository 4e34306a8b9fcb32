/** Memberships: what makes a server a member of a vault (DESIGN §4). Signed by the vault key. */
import { z } from 'zod'
import { decodeDocument, encodeDocument } from '../channel/codec.ts'
import type { ServerKind } from '../channel/port.ts'
import { HotsiteError } from '../errors/hotsite-error.ts'
import { type ServerId, serverId, type VaultId, vaultId } from '../ids.ts'
import { openSigned, peekSigned, signDocument } from './signed-document.ts'

export interface Membership {
  readonly vaultId: VaultId
  readonly serverId: ServerId
  readonly kind: ServerKind
  readonly name: string
  /** The server's Ed25519 key, 32 bytes. */
  readonly publicKey: Uint8Array
  readonly issuedAtMs: number
  readonly expiresAtMs: number
  /** Of the vault key that signed; regenerating the vault key raises it. */
  readonly generation: number
}

/** The last instant a Date can show. */
const maxTimeMs = 8.64e15

const membershipSchema: z.ZodType<Membership, unknown> = z.object({
  vaultId,
  serverId,
  kind: z.enum(['coordinator', 'provider', 'agent']),
  name: z.string().min(1).max(200),
  publicKey: z.instanceof(Uint8Array).refine((key) => key.length === 32, 'public key: 32 bytes'),
  issuedAtMs: z.int().max(maxTimeMs),
  expiresAtMs: z.int().max(maxTimeMs),
  generation: z.int().positive(),
})

export function issueMembership(membership: Membership, vaultSecretKey: Uint8Array): Uint8Array {
  const checked = parse(membership)
  return signDocument('membership', encodeDocument('membership', checked), vaultSecretKey)
}

export interface VerifyMembershipInput {
  readonly encoded: Uint8Array
  readonly vaultPublicKey: Uint8Array
  readonly nowMs: number
  readonly isRevoked: (serverId: ServerId) => boolean
  /** When given, the membership must be of this vault. */
  readonly vaultId?: VaultId
  /** When given, the membership must be of this generation of the vault key. */
  readonly generation?: number
}

/**
 * The membership, if it holds now. Throws `membership-wrong-vault`, `membership-generation`, `signature-invalid`,
 * `membership-invalid`, `membership-expired`, `membership-revoked`. The issue time is not compared with the clock: a
 * clock set back by hours must not stop replication (I14).
 */
export function verifyMembership(input: VerifyMembershipInput): Membership {
  // The two checks on unverified content can only refuse; they come first because they name the cause better.
  const claimed = parse(decode(peekSigned('membership', input.encoded)))
  if (input.vaultId !== undefined && claimed.vaultId !== input.vaultId)
    throw new HotsiteError(
      'membership-wrong-vault',
      `${claimed.name} is a member of vault ${claimed.vaultId}, not of ${input.vaultId}`,
    )
  if (input.generation !== undefined && claimed.generation !== input.generation)
    throw new HotsiteError(
      'membership-generation',
      `the membership of ${claimed.name} is of generation ${claimed.generation} of the vault key; ${input.generation} is in force`,
      { details: { generation: claimed.generation, expected: input.generation } },
    )
  const membership = parse(decode(openSigned('membership', input.encoded, input.vaultPublicKey)))
  if (input.nowMs >= membership.expiresAtMs)
    throw new HotsiteError(
      'membership-expired',
      `the membership of ${membership.name} expired at ${new Date(membership.expiresAtMs).toISOString()}`,
      { details: { expiresAtMs: membership.expiresAtMs, nowMs: input.nowMs } },
    )
  if (input.isRevoked(membership.serverId))
    throw new HotsiteError('membership-revoked', `${membership.name} was removed from the vault`, {
      details: { serverId: membership.serverId },
    })
  return membership
}

/** What a membership claims, unverified: to find the vault it is to be verified under. Throws `membership-invalid`, `signature-invalid`. */
export function peekMembership(encoded: Uint8Array): Membership {
  return parse(decode(peekSigned('membership', encoded)))
}

function decode(document: Uint8Array): unknown {
  try {
    return decodeDocument('membership', document)
  } catch (error) {
    throw new HotsiteError('membership-invalid', 'the membership cannot be read', { cause: error })
  }
}

function parse(document: unknown): Membership {
  const parsed = membershipSchema.safeParse(document)
  if (parsed.success) return parsed.data
  const problem = parsed.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`).join('; ')
  throw new HotsiteError('membership-invalid', `the membership is not valid: ${problem}`)
}
