import { describe, expect, test } from 'vitest'
import { HotsiteError } from '../errors/hotsite-error.ts'
import { diskId, serverId, vaultId, vmId } from '../ids.ts'
import { generateKeys, keysFromSecret } from './keys.ts'
import { issueMembership, type Membership, peekMembership, verifyMembership } from './membership.ts'
import { openManifest, type PointManifest, readStoredManifest, signManifest } from './point-manifest.ts'
import { openSigned, signDocument } from './signed-document.ts'
import { issueTicket, type Ticket, verifyTicket } from './ticket.ts'

const vault = generateKeys()
const server = generateKeys()
const stranger = generateKeys()

function codeOf(act: () => unknown): string {
  try {
    act()
  } catch (error) {
    if (error instanceof HotsiteError) return error.code
    throw error
  }
  return 'accepted'
}

/** Every position of the encoded document with one bit flipped, a sample of them. */
function flipped(encoded: Uint8Array): Uint8Array[] {
  return [1, 5, 20, 40, encoded.length - 30, encoded.length - 1].map((index) => {
    const copy = Uint8Array.from(encoded)
    copy[index] = (copy[index] ?? 0) ^ 1
    return copy
  })
}

const membership: Membership = {
  vaultId: vaultId.parse('vault-a'),
  serverId: serverId.parse('server-1'),
  kind: 'agent',
  name: 'host-1',
  publicKey: server.publicKey,
  issuedAtMs: 1000,
  expiresAtMs: 5000,
  generation: 2,
}

describe('membership', () => {
  const encoded = issueMembership(membership, vault.secretKey)
  const good = { encoded, vaultPublicKey: vault.publicKey, nowMs: 2000, isRevoked: () => false }

  test('verifies to what was issued, and can be peeked at', () => {
    expect(verifyMembership({ ...good, vaultId: membership.vaultId, generation: 2 })).toEqual(membership)
    expect(peekMembership(encoded)).toEqual(membership)
  })

  test.each([
    ['the key of another vault', { vaultPublicKey: stranger.publicKey }, 'signature-invalid'],
    ['another vault expected', { vaultId: vaultId.parse('vault-b') }, 'membership-wrong-vault'],
    ['an older generation', { generation: 3 }, 'membership-generation'],
    ['at its last instant', { nowMs: 5000 }, 'membership-expired'],
    ['removed', { isRevoked: () => true }, 'membership-revoked'],
    ['no document', { encoded: Buffer.from('hello') }, 'signature-invalid'],
    ['issued in the future by a clock set back', { nowMs: 5 }, 'accepted'],
  ])('%s', (_name, change, code) => {
    expect(codeOf(() => verifyMembership({ ...good, ...change }))).toBe(code)
  })

  test('any bit flipped is refused', () => {
    for (const bad of flipped(encoded))
      expect(codeOf(() => verifyMembership({ ...good, encoded: bad }))).toMatch(/-invalid$/)
  })

  test('an unfit name, key or id is never issued', () => {
    for (const change of [{ name: '' }, { publicKey: new Uint8Array(31) }, { serverId: '../x' as never }])
      expect(codeOf(() => issueMembership({ ...membership, ...change }, vault.secretKey))).toBe(
        'membership-invalid',
      )
  })
})

describe('ticket', () => {
  const ticket: Ticket = {
    vaultId: vaultId.parse('vault-a'),
    vmId: vmId.parse('vm-1'),
    epoch: 3,
    sourceServerId: serverId.parse('server-1'),
    targetServerId: serverId.parse('server-2'),
    issuedAtMs: 1000,
    expiresAtMs: 5000,
  }
  const encoded = issueTicket(ticket, vault.secretKey)
  const good = { encoded, vaultPublicKey: vault.publicKey, nowMs: 2000, scope: ticket }

  test('verifies to what was issued', () => expect(verifyTicket(good)).toEqual(ticket))

  test.each([
    ['older epoch', { scope: { ...ticket, epoch: 4 } }, 'ticket-invalid'],
    ['another VM', { scope: { ...ticket, vmId: vmId.parse('vm-2') } }, 'ticket-invalid'],
    ['another source', { scope: { ...ticket, sourceServerId: serverId.parse('x') } }, 'ticket-invalid'],
    ['another target', { scope: { ...ticket, targetServerId: serverId.parse('x') } }, 'ticket-invalid'],
    ['another vault', { scope: { ...ticket, vaultId: vaultId.parse('x') } }, 'ticket-invalid'],
    ['expired', { nowMs: 5000 }, 'ticket-expired'],
    ['not signed by the vault', { vaultPublicKey: server.publicKey }, 'signature-invalid'],
  ])('%s', (_name, change, code) => {
    expect(codeOf(() => verifyTicket({ ...good, ...change }))).toBe(code)
  })
})

describe('point manifest', () => {
  const manifest: PointManifest = {
    vaultId: vaultId.parse('vault-a'),
    vmId: vmId.parse('vm-1'),
    epoch: 1,
    seq: 2 ** 53 - 1,
    capturedAtMs: 1234,
    consistency: 'crash',
    disks: [
      {
        diskId: diskId.parse('disk-0'),
        sizeBytes: 2 ** 40,
        root: new Uint8Array(32).fill(7),
        changedBlocks: 0,
      },
    ],
    sourceServerId: serverId.parse('server-1'),
    suspect: '',
  }
  const encoded = signManifest(manifest, server)

  test('opens to what was signed', () => {
    expect(openManifest(encoded, server.publicKey)).toEqual(manifest)
    expect(readStoredManifest(encoded)).toEqual(manifest)
  })

  test('another key, a flipped bit and a number beyond 2^53 are refused', () => {
    expect(codeOf(() => openManifest(encoded, stranger.publicKey))).toBe('manifest-invalid')
    for (const bad of flipped(encoded))
      expect(codeOf(() => openManifest(bad, server.publicKey))).toBe('manifest-invalid')
    expect(codeOf(() => signManifest({ ...manifest, seq: 2 ** 53 }, server))).toBe('channel-unsafe-number')
  })
})

test('a signature for one kind of document is worth nothing for another', () => {
  const bytes = Buffer.from('same bytes')
  const signed = signDocument('ticket', bytes, vault.secretKey)
  expect(Buffer.from(openSigned('ticket', signed, vault.publicKey))).toEqual(bytes)
  expect(codeOf(() => openSigned('membership', signed, vault.publicKey))).toBe('signature-invalid')
})

test('keys come back from their secret half', () => {
  expect(keysFromSecret(server.secretKey).publicKey).toEqual(server.publicKey)
})
