/** Ed25519 identities of vaults and servers. The secret key is the 64 bytes of NaCl: seed, then public key. */
import nacl from 'tweetnacl'

export interface ServerKeys {
  /** 32 bytes. */
  readonly publicKey: Uint8Array
  /** 64 bytes; kept in a file of mode 0600 and never logged (I15). */
  readonly secretKey: Uint8Array
}

export function generateKeys(): ServerKeys {
  return nacl.sign.keyPair()
}

/** Throws when `secretKey` is not 64 bytes. */
export function keysFromSecret(secretKey: Uint8Array): ServerKeys {
  return nacl.sign.keyPair.fromSecretKey(Uint8Array.from(secretKey))
}

/** 64 bytes. About 2 ms: for small documents only. */
export function sign(bytes: Uint8Array, secretKey: Uint8Array): Uint8Array {
  return nacl.sign.detached(bytes, secretKey)
}

/** About 5 ms. False, never an error, for a signature or key of the wrong length. */
export function verify(bytes: Uint8Array, signature: Uint8Array, publicKey: Uint8Array): boolean {
  if (signature.length !== nacl.sign.signatureLength || publicKey.length !== nacl.sign.publicKeyLength)
    return false
  return nacl.sign.detached.verify(bytes, signature, publicKey)
}
