import { type KeyObject, X509Certificate } from 'node:crypto'
import type forge from 'node-forge'
import { HotsiteError } from '../errors/hotsite-error.ts'
import { allowsDigitalSignature, certificateFields, versionOf } from './certificate-fields.ts'

/** A certificate that passed every rule of DESIGN §4. Times in ms since 1970. */
export interface VaultCertificate {
  /** "CN=Contoso DR, O=Contoso" */
  readonly subject: string
  /** SHA-256 over the DER form, 64 upper-case hex digits, as Windows and `openssl x509 -fingerprint` show it. */
  readonly thumbprint: string
  readonly notBeforeMs: number
  readonly notAfterMs: number
  /** The certificate alone: whatever else the file held, a private key for instance, is left out. */
  readonly pem: string
}

const clientAuthentication = '1.3.6.1.5.5.7.3.2'
const minRsaBits = 2048
/** Curves of TLS 1.3 signatures (RFC 8446 §4.2.3) with their sizes; P-192 and P-224 are not among them. */
const acceptedCurves = new Set(['prime256v1', 'secp384r1', 'secp521r1'])
const weakCurves = new Set(['secp112r1', 'secp128r1', 'secp160r1', 'prime192v1', 'secp192k1', 'secp224r1'])
const maxValidityYears = 3

/**
 * Checks a certificate an administrator uploads: PEM (the first certificate in it) or DER.
 * One error code per broken rule, in the order of the table in docs/security.md; the first broken one is thrown.
 */
export function checkVaultCertificate(pemOrDer: string | Uint8Array, nowMs: number): VaultCertificate {
  const certificate = parse(pemOrDer)
  const fields = certificateFields(certificate.raw)
  ensureVersion3(fields)
  ensureStrongKey(certificate)
  ensureClientAuthentication(certificate)
  ensureDigitalSignature(fields)
  const notBeforeMs = certificate.validFromDate.getTime()
  const notAfterMs = certificate.validToDate.getTime()
  ensureValidNow({ notBeforeMs, notAfterMs, nowMs })
  return {
    subject: oneLine(certificate.subject),
    thumbprint: thumbprintOf(certificate),
    notBeforeMs,
    notAfterMs,
    pem: certificate.toString(),
  }
}

export function thumbprintOf(certificate: X509Certificate): string {
  return certificate.fingerprint256.replaceAll(':', '')
}

function parse(pemOrDer: string | Uint8Array): X509Certificate {
  const bytes = typeof pemOrDer === 'string' ? Buffer.from(pemOrDer) : Buffer.from(pemOrDer)
  const pem = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/.exec(bytes.toString('latin1'))
  try {
    return new X509Certificate(pem ? pem[0] : bytes)
  } catch (error) {
    // The parser's own words name ASN.1 internals, not the file; they stay in the cause.
    throw new HotsiteError(
      'vault-certificate-unreadable',
      `this is not an X.509 certificate in PEM or DER form (${describeContent(bytes)})`,
      { cause: error },
    )
  }
}

function describeContent(bytes: Buffer): string {
  if (bytes.length === 0) return 'it is empty'
  const label = /-----BEGIN ([A-Z0-9 ]{1,40})-----/.exec(bytes.toString('latin1'))?.[1]
  if (label) return `its first PEM block is "${label}"`
  return bytes[0] === 0x30
    ? 'it is DER of another kind, a .pfx perhaps'
    : `${bytes.length} bytes of other data`
}

function ensureVersion3(fields: readonly forge.asn1.Asn1[]): void {
  const version = versionOf(fields)
  if (version === 3) return
  throw new HotsiteError('vault-certificate-not-v3', `the certificate is X.509 version ${version}`, {
    details: { version },
  })
}

function ensureStrongKey(certificate: X509Certificate): void {
  const key = publicKeyOf(certificate)
  const type = key?.asymmetricKeyType ?? 'unknown'
  if (type === 'rsa' || type === 'rsa-pss') {
    const bits = key?.asymmetricKeyDetails?.modulusLength ?? 0
    if (bits >= minRsaBits) return
    throw new HotsiteError('vault-certificate-key-weak', `the certificate has an RSA key of ${bits} bit`, {
      details: { bits, minimumBits: minRsaBits },
    })
  }
  const curve = key?.asymmetricKeyDetails?.namedCurve ?? 'unnamed'
  if (type === 'ec' && acceptedCurves.has(curve)) return
  if (type === 'ec' && weakCurves.has(curve)) {
    throw new HotsiteError('vault-certificate-key-weak', `the certificate has an EC key on ${curve}`, {
      details: { curve },
    })
  }
  const found = type === 'ec' ? `an EC key on the curve ${curve}` : `a key of the type ${type}`
  throw new HotsiteError('vault-certificate-key-type', `the certificate has ${found}`)
}

/** undefined: a key type OpenSSL does not know. */
function publicKeyOf(certificate: X509Certificate): KeyObject | undefined {
  try {
    return certificate.publicKey
  } catch {
    return undefined
  }
}

/** Node's `keyUsage` holds the extended key usages. */
function ensureClientAuthentication(certificate: X509Certificate): void {
  if (certificate.keyUsage?.includes(clientAuthentication)) return
  throw new HotsiteError(
    'vault-certificate-no-client-auth',
    'the certificate does not have the extended key usage Client Authentication (1.3.6.1.5.5.7.3.2)',
    { details: { extendedKeyUsage: certificate.keyUsage ?? [] } },
  )
}

function ensureDigitalSignature(fields: readonly forge.asn1.Asn1[]): void {
  if (allowsDigitalSignature(fields)) return
  throw new HotsiteError(
    'vault-certificate-key-usage',
    'the key usage of the certificate does not contain digitalSignature',
  )
}

function ensureValidNow(times: { notBeforeMs: number; notAfterMs: number; nowMs: number }): void {
  const { notBeforeMs, notAfterMs, nowMs } = times
  const details = { notBefore: iso(notBeforeMs), notAfter: iso(notAfterMs), now: iso(nowMs) }
  if (nowMs < notBeforeMs) {
    throw new HotsiteError(
      'vault-certificate-not-yet-valid',
      `the certificate is valid from ${details.notBefore}; it is ${details.now} here`,
      { details },
    )
  }
  if (nowMs > notAfterMs) {
    throw new HotsiteError(
      'vault-certificate-expired',
      `the certificate was valid until ${details.notAfter}; it is ${details.now} here`,
      { details },
    )
  }
  if (notAfterMs > addYears(notBeforeMs, maxValidityYears)) {
    throw new HotsiteError(
      'vault-certificate-validity-too-long',
      `the certificate is valid from ${details.notBefore} to ${details.notAfter}, more than ${maxValidityYears} years`,
      { details },
    )
  }
}

function addYears(timeMs: number, years: number): number {
  const date = new Date(timeMs)
  return date.setUTCFullYear(date.getUTCFullYear() + years)
}

function iso(timeMs: number): string {
  return new Date(timeMs).toISOString()
}

/** Node gives one "TYPE=value" a line, most general first. */
function oneLine(subject: string | undefined): string {
  return subject ? subject.split('\n').reverse().join(', ') : '(no subject)'
}
