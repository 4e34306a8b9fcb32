/** Transcript and session keys of the handshake. Deterministic: all randomness comes in. */
import { createHash, hkdfSync } from 'node:crypto'
import nacl from 'tweetnacl'
import { HotsiteError } from '../errors/hotsite-error.ts'
import { macKeyBytes } from './mac.ts'

export interface Ephemeral {
  /** X25519, 32 bytes each. */
  readonly publicKey: Uint8Array
  readonly secretKey: Uint8Array
}

/** What a side brings to one handshake and to no other. */
export interface HandshakeRandom {
  readonly ephemeral: Ephemeral
  /** 32 bytes. */
  readonly nonce: Uint8Array
}

export const exporterLabel = 'EXPORTER-hotsite-channel-v1'
export const exporterBytes = 32

export function handshakeRandom(): HandshakeRandom {
  return { ephemeral: nacl.box.keyPair(), nonce: nacl.randomBytes(32) }
}

/**
 * SHA-256 over label, TLS exporter value and both Hello frames as they were on the wire, each with its length before
 * it. Whoever relays between two TLS connections sees two exporter values, so no proof fits both.
 */
export function transcriptHash(
  exporter: Uint8Array,
  clientHello: Uint8Array,
  serverHello: Uint8Array,
): Buffer {
  const hash = createHash('sha256')
  for (const part of [Buffer.from('hotsite-channel-v1'), exporter, clientHello, serverHello]) {
    const length = Buffer.alloc(4)
    length.writeUInt32BE(part.length)
    hash.update(length).update(part)
  }
  return hash.digest()
}

export interface SessionKeys {
  readonly clientToServer: Uint8Array
  readonly serverToClient: Uint8Array
}

/** HKDF-SHA256 over the X25519 secret, salted with the transcript. Throws `channel-bad-proof` for a key of low order. */
export function sessionKeys(own: Ephemeral, peerKey: Uint8Array, transcript: Uint8Array): SessionKeys {
  const secret = nacl.scalarMult(own.secretKey, peerKey)
  if (secret.every((byte) => byte === 0))
    throw new HotsiteError('channel-bad-proof', 'the peer offered a key that agrees on nothing')
  const derive = (direction: string) =>
    new Uint8Array(hkdfSync('sha256', secret, transcript, `hotsite-channel-v1 ${direction}`, macKeyBytes))
  return { clientToServer: derive('client-to-server'), serverToClient: derive('server-to-client') }
}
