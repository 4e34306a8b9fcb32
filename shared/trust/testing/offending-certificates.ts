/** Certificates that keep or break chosen rules, and the folders tests put them in. */
import 'reflect-metadata'
import { webcrypto } from 'node:crypto'
import * as x509 from '@peculiar/x509'

export const dayMs = 86_400_000

export interface CertificateOptions {
  readonly algorithm?: RsaHashedKeyGenParams | EcKeyGenParams | { name: 'Ed25519' }
  readonly notBefore: Date
  readonly notAfter: Date
  readonly name?: string
  readonly extendedKeyUsage?: readonly x509.ExtendedKeyUsage[]
  readonly keyUsage?: x509.KeyUsageFlags
}

type RsaHashedKeyGenParams = {
  name: 'RSASSA-PKCS1-v1_5'
  hash: string
  modulusLength: number
  publicExponent: Uint8Array
}
type EcKeyGenParams = { name: 'ECDSA'; namedCurve: string }

export interface MadeCertificate {
  readonly certificatePem: string
  readonly privateKeyPem: string
}

export const ecP256: EcKeyGenParams = { name: 'ECDSA', namedCurve: 'P-256' }

export function rsa(modulusLength: number): RsaHashedKeyGenParams {
  return {
    name: 'RSASSA-PKCS1-v1_5',
    hash: 'SHA-256',
    modulusLength,
    publicExponent: new Uint8Array([1, 0, 1]),
  }
}

/** Self-signed; a good vault certificate unless told otherwise. */
export async function makeCertificate(options: CertificateOptions): Promise<MadeCertificate> {
  const { algorithm = ecP256, keyUsage } = options
  const keys = await generate(algorithm)
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    ...commonParams(options),
    name: [{ CN: [options.name ?? 'vault'] }],
    keys,
    signingAlgorithm: signingAlgorithm(algorithm),
    extensions: extensionsOf(options.extendedKeyUsage, keyUsage),
  })
  return pemOf(certificate, keys)
}

/** Issued by an authority nobody here knows. */
export async function makeIssuedCertificate(options: CertificateOptions): Promise<MadeCertificate> {
  const issuerKeys = await generate(ecP256)
  const keys = await generate(ecP256)
  const certificate = await x509.X509CertificateGenerator.create({
    ...commonParams(options),
    subject: [{ CN: [options.name ?? 'issued'] }],
    issuer: [{ CN: ['some authority'] }],
    publicKey: keys.publicKey,
    signingKey: issuerKeys.privateKey,
    signingAlgorithm: signingAlgorithm(ecP256),
    extensions: extensionsOf(options.extendedKeyUsage, options.keyUsage),
  })
  return pemOf(certificate, keys)
}

function commonParams({ notBefore, notAfter }: CertificateOptions) {
  return { notBefore, notAfter, serialNumber: webcrypto.getRandomValues(Buffer.alloc(8)).toString('hex') }
}

function extensionsOf(
  extendedKeyUsage: readonly x509.ExtendedKeyUsage[] = [x509.ExtendedKeyUsage.clientAuth],
  keyUsage?: x509.KeyUsageFlags,
): x509.Extension[] {
  return [
    ...(extendedKeyUsage.length > 0 ? [new x509.ExtendedKeyUsageExtension([...extendedKeyUsage])] : []),
    ...(keyUsage === undefined ? [] : [new x509.KeyUsagesExtension(keyUsage, true)]),
  ]
}

function signingAlgorithm(algorithm: NonNullable<CertificateOptions['algorithm']>) {
  return algorithm.name === 'ECDSA' ? { ...algorithm, hash: 'SHA-256' } : algorithm
}

async function generate(algorithm: NonNullable<CertificateOptions['algorithm']>): Promise<CryptoKeyPair> {
  return (await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])) as CryptoKeyPair
}

type CryptoKeyPair = webcrypto.CryptoKeyPair

async function pemOf(certificate: x509.X509Certificate, keys: CryptoKeyPair): Promise<MadeCertificate> {
  const pkcs8 = await webcrypto.subtle.exportKey('pkcs8', keys.privateKey)
  return {
    certificatePem: `${certificate.toString('pem')}\n`,
    privateKeyPem: `${x509.PemConverter.encode(pkcs8, 'PRIVATE KEY')}\n`,
  }
}

export { ExtendedKeyUsage, KeyUsageFlags } from '@peculiar/x509'
