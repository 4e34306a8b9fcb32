/**
 * Documents signed with a vault or server key. What is signed is "hotsite.<context>.v1", a zero byte and the document,
 * so that a signature for one kind of document is worth nothing for another.
 */
import { decodeDocument, encodeDocument } from '../channel/codec.ts'
import { HotsiteError } from '../errors/hotsite-error.ts'
import { sign, verify } from './keys.ts'

export type DocumentContext =
  | 'membership'
  | 'ticket'
  | 'point-manifest'
  | 'credentials'
  | 'registration'
  | 'plan'
  | 'channel-proof-client'
  | 'channel-proof-server'

/** The bytes that are signed for `document`. */
export function signedBytes(context: DocumentContext, document: Uint8Array): Uint8Array {
  return Buffer.concat([Buffer.from(`hotsite.${context}.v1\0`), document])
}

/** An encoded `Signed{document, signature}`. */
export function signDocument(
  context: DocumentContext,
  document: Uint8Array,
  secretKey: Uint8Array,
): Uint8Array {
  const signature = sign(signedBytes(context, document), secretKey)
  return encodeDocument('signed', { document, signature })
}

/** The document inside, verified. Throws `signature-invalid`, also for bytes that are no signed document at all. */
export function openSigned(context: DocumentContext, encoded: Uint8Array, publicKey: Uint8Array): Uint8Array {
  const { document, signature } = readUnverified(context, encoded)
  if (!verify(signedBytes(context, document), signature, publicKey))
    throw new HotsiteError('signature-invalid', `the ${context} is not signed by the expected key`)
  return document
}

/** The document inside, unverified: for choosing the key to verify it with, and for nothing else. */
export function peekSigned(context: DocumentContext, encoded: Uint8Array): Uint8Array {
  return readUnverified(context, encoded).document
}

function readUnverified(context: DocumentContext, encoded: Uint8Array) {
  try {
    return decodeDocument('signed', encoded)
  } catch (error) {
    throw new HotsiteError('signature-invalid', `the ${context} is not a signed document`, { cause: error })
  }
}
