/** The vault certificate with its private key, as an administrator brings it to a server: a .pfx or a .pem. */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import forge from 'node-forge'
import { HotsiteError } from '../errors/hotsite-error.ts'

export type KeyAndCertificate =
  /** Certificate and private key, one after the other, in any order. */
  { readonly pem: string } | { readonly pfx: Uint8Array; readonly password: string }

export interface KeyPairPem {
  readonly certificatePem: string
  /** A secret (I15). */
  readonly privateKeyPem: string
}

/** By content, not by name: PEM text, or PKCS #12 with `password` ('' when it has none). */
export function readKeyAndCertificate(path: string, password: string): KeyAndCertificate {
  let bytes: Buffer
  try {
    bytes = readFileSync(path)
  } catch (error) {
    throw new HotsiteError('key-pair-unreadable', `cannot read ${path}: ${(error as Error).message}`, {
      cause: error,
    })
  }
  return bytes.includes('-----BEGIN ') ? { pem: bytes.toString('utf8') } : { pfx: bytes, password }
}

/** Throws `key-pair-unreadable`, `key-pair-mismatch`. Parsers' messages stay out of the errors: they may quote the input. */
export function openKeyAndCertificate(given: KeyAndCertificate): KeyPairPem {
  return 'pem' in given ? splitPem(given.pem) : openPfx(given.pfx, given.password)
}

function splitPem(pem: string): KeyPairPem {
  const certificates = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []
  const privateKeyPem = /-----BEGIN ([A-Z ]*PRIVATE KEY)-----[\s\S]+?-----END \1-----/.exec(pem)?.[0]
  if (certificates.length === 0) throw unreadable('it has no certificate')
  if (!privateKeyPem) throw unreadable('it has no private key')
  if (privateKeyPem.includes('ENCRYPTED'))
    throw unreadable('its private key has a password; give the .pfx instead')
  return choosePair(certificates, privateKeyPem)
}

/** A chain may stand beside it; the certificate is the one that fits the key. */
function choosePair(certificates: readonly string[], privateKeyPem: string): KeyPairPem {
  const certificatePem = certificates.find((pem) => belongTogether(pem, privateKeyPem))
  if (certificatePem) return { certificatePem, privateKeyPem }
  throw new HotsiteError('key-pair-mismatch', 'the private key is not the one of the certificate beside it')
}

/**
 * node-forge, not `tls.connect({ pfx })`: OpenSSL 3 no longer opens the RC2 and 3DES files that Windows Server up to 2016
 * exports, and it gives no way to look at the certificate before it is used.
 */
function openPfx(pfx: Uint8Array, password: string): KeyPairPem {
  const { certificates, keys } = pfxBags(pfx, password)
  const [privateKeyPem] = keys
  if (!privateKeyPem) throw unreadable('the .pfx has no private key')
  if (certificates.length === 0) throw unreadable('the .pfx has no certificate')
  return choosePair(certificates, privateKeyPem)
}

function pfxBags(pfx: Uint8Array, password: string): { certificates: string[]; keys: string[] } {
  try {
    const asn1 = forge.asn1.fromDer(forge.util.createBuffer(Buffer.from(pfx).toString('binary')), true)
    const bags = forge.pkcs12.pkcs12FromAsn1(asn1, true, password).safeContents.flatMap((one) => one.safeBags)
    const certificates = bags
      .filter((bag) => bag.type === forge.pki.oids['certBag'])
      .map((bag) => new X509Certificate(derOf(bag.cert ? forge.pki.certificateToAsn1(bag.cert) : bag.asn1)))
    const keyTypes = [forge.pki.oids['keyBag'], forge.pki.oids['pkcs8ShroudedKeyBag']]
    const keys = bags
      .filter((bag) => keyTypes.includes(bag.type))
      .map((bag) => (bag.key ? forge.pki.wrapRsaPrivateKey(forge.pki.privateKeyToAsn1(bag.key)) : bag.asn1))
      .map((key) => createPrivateKey({ key: derOf(key), format: 'der', type: 'pkcs8' }))
    return {
      certificates: certificates.map((certificate) => certificate.toString()),
      keys: keys.map((key) => key.export({ format: 'pem', type: 'pkcs8' }).toString()),
    }
  } catch {
    throw unreadable(
      'it is not a .pfx (PKCS #12) file, or the password is wrong or has characters beyond ASCII',
    )
  }
}

function derOf(node: forge.asn1.Asn1): Buffer {
  return Buffer.from(forge.asn1.toDer(node).getBytes(), 'binary')
}

function belongTogether(certificatePem: string, privateKeyPem: string): boolean {
  try {
    return new X509Certificate(certificatePem).checkPrivateKey(createPrivateKey(privateKeyPem))
  } catch {
    throw unreadable('its certificate or its private key is damaged')
  }
}

function unreadable(problem: string): HotsiteError {
  return new HotsiteError(
    'key-pair-unreadable',
    `the certificate with its private key cannot be used: ${problem}`,
  )
}
