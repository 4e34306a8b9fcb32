/**
 * Ed25519 of node:crypto below tweetnacl's functions: the same signatures, a hundred times as fast. Half of a
 * simulation's time would go into them otherwise, and they are proved elsewhere.
 */
import { createPrivateKey, createPublicKey, type KeyObject, sign, verify } from 'node:crypto'
import nacl from 'tweetnacl'
import type { ServerKeys } from '#shared/trust/keys.ts'

const keys = new Map<string, KeyObject>()

function keyOf(name: string, make: () => KeyObject): KeyObject {
  const known = keys.get(name) ?? make()
  keys.set(name, known)
  return known
}

/** PKCS #8 and SPKI in front of 32 raw bytes (RFC 8410). */
const PRIVATE_PREFIX = Buffer.from('302e020100300506032b657004220420', 'hex')
const PUBLIC_PREFIX = Buffer.from('302a300506032b6570032100', 'hex')

function signNatively(message: Uint8Array, secretKey: Uint8Array): Uint8Array {
  const seed = secretKey.subarray(0, 32)
  const key = keyOf(`secret ${Buffer.from(seed).toString('hex')}`, () =>
    createPrivateKey({ key: Buffer.concat([PRIVATE_PREFIX, seed]), format: 'der', type: 'pkcs8' }),
  )
  return sign(null, message, key)
}

function verifyNatively(message: Uint8Array, signature: Uint8Array, publicKey: Uint8Array): boolean {
  const key = keyOf(`public ${Buffer.from(publicKey).toString('hex')}`, () =>
    createPublicKey({ key: Buffer.concat([PUBLIC_PREFIX, publicKey]), format: 'der', type: 'spki' }),
  )
  return verify(null, message, key, signature)
}

export function useNativeSignatures(): void {
  nacl.sign.detached = Object.assign(signNatively, { verify: verifyNatively })
}

const pairs = new Map<number, ServerKeys>()

/** Keys that follow from a number, so that a history can be repeated. */
export function keysFromNumber(number: number): ServerKeys {
  const known = pairs.get(number) ?? nacl.sign.keyPair.fromSeed(new Uint8Array(32).fill(number))
  pairs.set(number, known)
  return known
}
