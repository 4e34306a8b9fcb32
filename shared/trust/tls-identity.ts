/**
 * The TLS identity of a listener: a self-signed EC P-256 certificate that peers pin. It says nothing about who the
 * server is (memberships do), so it is valid for as long as a Date can hold: no clock jump and no forgotten renewal
 * cuts replication.
 */
import 'reflect-metadata'
import { webcrypto } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import * as x509 from '@peculiar/x509'
import { writeFileDurably } from '../durable-file.ts'
import { HotsiteError } from '../errors/hotsite-error.ts'

export interface TlsIdentity {
  readonly keyPem: string
  readonly certificatePem: string
}

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const
const notBefore = new Date('2020-01-01T00:00:00Z')
/** RFC 5280 §4.1.2.5: the value for a certificate with no well-defined end. */
const notAfter = new Date('9999-12-31T23:59:59Z')

export async function makeTlsIdentity(name: string): Promise<TlsIdentity> {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: [{ CN: [name.replace(/[^A-Za-z0-9_. -]/g, '_').slice(0, 64) || 'hotsite'] }],
    keys,
    signingAlgorithm: algorithm,
    notBefore,
    notAfter,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
    ],
  })
  const der = await webcrypto.subtle.exportKey('pkcs8', keys.privateKey)
  return {
    keyPem: x509.PemConverter.encode(der, 'PRIVATE KEY'),
    certificatePem: certificate.toString('pem'),
  }
}

/** `<dir>/tls-key.pem` (mode 0600) and `<dir>/tls-certificate.pem`, made at the first call. Throws `tls-identity-incomplete`. */
export async function loadOrMakeTlsIdentity(dir: string, name = hostname()): Promise<TlsIdentity> {
  const keyPath = join(dir, 'tls-key.pem')
  const certificatePath = join(dir, 'tls-certificate.pem')
  // The certificate is written last: without it an earlier run was cut short, and nobody can have pinned it.
  if (existsSync(certificatePath)) {
    if (!existsSync(keyPath))
      throw new HotsiteError('tls-identity-incomplete', `${certificatePath} has no ${keyPath} beside it`)
    chmodSync(keyPath, 0o600)
    return { keyPem: readFileSync(keyPath, 'utf8'), certificatePem: readFileSync(certificatePath, 'utf8') }
  }
  mkdirSync(dir, { recursive: true, mode: 0o700 })
  const identity = await makeTlsIdentity(name)
  writeFileDurably(keyPath, identity.keyPem, 0o600)
  writeFileDurably(certificatePath, identity.certificatePem)
  return identity
}
