/**
 * The MAC of a frame: GMAC, that is AES-256-GCM with everything as additional data and nothing encrypted (NIST SP
 * 800-38D). Chosen by measurement, see docs/performance.md. A GMAC nonce must never repeat under one key: the key is new
 * for each session and direction, and the nonce is the sequence number of the frame, which never repeats in a session.
 */
import { createCipheriv, createSecretKey, timingSafeEqual } from 'node:crypto'

export const macBytes = 16
export const macKeyBytes = 32

export interface Mac {
  /** 16 bytes over the parts, as if they were one. `sequence` must be new for each call with other parts. */
  tag(sequence: number, parts: readonly Uint8Array[]): Buffer
}

/** `direction` goes into the nonce too: even one key for both directions would not repeat a nonce. */
export function gmac(key: Uint8Array, direction: 'client-to-server' | 'server-to-client'): Mac {
  // Handing node:crypto the bytes each time costs several times the MAC of a small frame.
  const secret = createSecretKey(key)
  return {
    tag(sequence, parts) {
      const nonce = Buffer.alloc(12)
      nonce.writeUInt32BE(direction === 'client-to-server' ? 1 : 2, 0)
      nonce.writeBigUInt64BE(BigInt(sequence), 4)
      const cipher = createCipheriv('aes-256-gcm', secret, nonce)
      for (const part of parts) if (part.length > 0) cipher.setAAD(part)
      cipher.final()
      return cipher.getAuthTag()
    },
  }
}

/** Before there are keys. Handshake frames are covered by the transcript that both sides sign instead. */
export const noMac: Mac = { tag: () => Buffer.alloc(macBytes) }

export function macEquals(left: Uint8Array, right: Uint8Array): boolean {
  return left.length === right.length && timingSafeEqual(left, right)
}
