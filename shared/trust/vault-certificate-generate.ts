import { createPrivateKey, webcrypto } from 'node:crypto'
import forge from 'node-forge'
import { HotsiteError } from '../errors/hotsite-error.ts'

export interface GeneratedCertificate {
  /** The `.cer` an administrator uploads. */
  readonly certificatePem: string
  /** PKCS #8. A secret (I15): goes to a file of mode 0600 and nowhere else. */
  readonly privateKeyPem: string
  /** The pair as PKCS #12, encrypted with AES-256: what Windows servers import. ASCII passwords only. */
  pfx(password: string): Buffer
}

export interface CertificateRequest {
  /** "Contoso DR" (becomes the common name) or a whole name, "CN=Contoso DR, O=Contoso". */
  readonly subject: string
  readonly days: number
  readonly nowMs: number
}

const dayMs = 86_400_000
/** Servers whose clock is a little behind can use a fresh certificate at once. */
const clockAllowanceMs = 3_600_000
/** Three calendar years have 1095 or 1096 days; the smaller number is right always. */
const maxDays = 1095
/** Enough for OpenSSL's and Windows' readers, quick in JavaScript. */
const keyDerivationRounds = 10_000

/** A self-signed certificate that passes every rule of `checkVaultCertificate`, with its RSA 2048 key. */
export async function generateVaultCertificate(request: CertificateRequest): Promise<GeneratedCertificate> {
  const { subject, days, nowMs } = request
  if (!Number.isInteger(days) || days < 1 || days > maxDays) {
    throw new HotsiteError('request-invalid', `days must be a whole number from 1 to ${maxDays}, not ${days}`)
  }
  // @peculiar/x509 throws unless the reflection shim came first; both are loaded only where a certificate is made.
  await import('reflect-metadata')
  const x509 = await import('@peculiar/x509')
  const algorithm = {
    name: 'RSASSA-PKCS1-v1_5',
    hash: 'SHA-256',
    publicExponent: new Uint8Array([1, 0, 1]),
    modulusLength: 2048,
  }
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
  const notBeforeMs = nowMs - clockAllowanceMs
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: /^[A-Za-z]+=/.test(subject) ? subject : [{ CN: [subject] }],
    notBefore: new Date(notBeforeMs),
    notAfter: new Date(notBeforeMs + days * dayMs),
    signingAlgorithm: algorithm,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.clientAuth]),
    ],
  })
  const certificatePem = `${certificate.toString('pem')}\n`
  const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey))
  const privateKey = createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' })
  return {
    certificatePem,
    privateKeyPem: privateKey.export({ format: 'pem', type: 'pkcs8' }).toString(),
    pfx: (password) =>
      encodePfx({
        certificatePem,
        rsaKeyPem: privateKey.export({ format: 'pem', type: 'pkcs1' }).toString(),
        name: subject,
        password,
      }),
  }
}

/** Readers disagree on how letters beyond ASCII become bytes: such a file would open here and not there. */
const portablePassword = /^[\x20-\x7e]*$/

function encodePfx(request: {
  certificatePem: string
  rsaKeyPem: string
  name: string
  password: string
}): Buffer {
  if (!portablePassword.test(request.password))
    throw new HotsiteError('request-invalid', 'the password of a .pfx must consist of ASCII characters')
  const asn1 = forge.pkcs12.toPkcs12Asn1(
    forge.pki.privateKeyFromPem(request.rsaKeyPem),
    [forge.pki.certificateFromPem(request.certificatePem)],
    request.password,
    { algorithm: 'aes256', count: keyDerivationRounds, friendlyName: request.name },
  )
  return Buffer.from(forge.asn1.toDer(asn1).getBytes(), 'binary')
}
