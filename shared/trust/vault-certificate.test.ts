import { execFileSync, spawnSync } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createSecureContext } from 'node:tls'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { errorDocument, HotsiteError } from '../errors/hotsite-error.ts'
import { openKeyAndCertificate, readKeyAndCertificate } from './key-and-certificate.ts'
import {
  type CertificateOptions,
  dayMs,
  ExtendedKeyUsage,
  KeyUsageFlags,
  makeCertificate,
  makeIssuedCertificate,
  rsa,
} from './testing/offending-certificates.ts'
import { checkVaultCertificate } from './vault-certificate.ts'
import { type GeneratedCertificate, generateVaultCertificate } from './vault-certificate-generate.ts'

const now = Date.UTC(2026, 5, 15, 12)
const good: CertificateOptions = { notBefore: new Date(now - dayMs), notAfter: new Date(now + 365 * dayMs) }

let dir: string
let generated: GeneratedCertificate
beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'hotsite-certificates-'))
  generated = await generateVaultCertificate({ subject: 'Contoso DR', days: 1095, nowMs: now })
})
afterAll(() => rmSync(dir, { recursive: true, force: true }))

function openssl(...args: string[]): void {
  execFileSync('openssl', args, { cwd: dir, stdio: 'pipe' })
}

function codeOf(check: () => unknown): string {
  try {
    check()
    return 'accepted'
  } catch (error) {
    expect(error).toBeInstanceOf(HotsiteError)
    const document = errorDocument(error)
    expect(document.possibleCause.length).toBeGreaterThan(20)
    expect(document.recommendedAction.length).toBeGreaterThan(20)
    return document.code
  }
}

describe('a vault certificate that breaks one rule is refused with the code of that rule', () => {
  const cases: readonly (readonly [string, CertificateOptions, string])[] = [
    ['RSA 1024', { ...good, algorithm: rsa(1024) }, 'vault-certificate-key-weak'],
    ['Ed25519', { ...good, algorithm: { name: 'Ed25519' } }, 'vault-certificate-key-type'],
    [
      'for servers only',
      { ...good, extendedKeyUsage: [ExtendedKeyUsage.serverAuth] },
      'vault-certificate-no-client-auth',
    ],
    ['without extended key usage', { ...good, extendedKeyUsage: [] }, 'vault-certificate-no-client-auth'],
    [
      'key usage without digitalSignature',
      { ...good, keyUsage: KeyUsageFlags.keyEncipherment | KeyUsageFlags.keyCertSign },
      'vault-certificate-key-usage',
    ],
    ['from tomorrow', { ...good, notBefore: new Date(now + dayMs) }, 'vault-certificate-not-yet-valid'],
    [
      'until yesterday',
      { ...good, notBefore: new Date(now - 9 * dayMs), notAfter: new Date(now - dayMs) },
      'vault-certificate-expired',
    ],
    [
      'three years and a second',
      { notBefore: new Date(Date.UTC(2026, 0, 1)), notAfter: new Date(Date.UTC(2029, 0, 1, 0, 0, 1)) },
      'vault-certificate-validity-too-long',
    ],
  ]
  it.each(cases)('%s', async (_what, options, code) => {
    const { certificatePem } = await makeCertificate(options)
    expect(codeOf(() => checkVaultCertificate(certificatePem, now))).toBe(code)
  })

  it.each([
    ['P-224', 'secp224r1', 'vault-certificate-key-weak'],
    ['the curve of bitcoin', 'secp256k1', 'vault-certificate-key-type'],
  ])('EC on %s', (_what, curve, code) => {
    openssl('ecparam', '-name', curve, '-genkey', '-noout', '-out', `${curve}.key`)
    openssl(
      'req',
      '-x509',
      '-new',
      '-key',
      `${curve}.key`,
      '-subj',
      '/CN=v',
      '-days',
      '3',
      '-out',
      `${curve}.cer`,
    )
    expect(codeOf(() => checkVaultCertificate(readFileSync(join(dir, `${curve}.cer`)), Date.now()))).toBe(
      code,
    )
  })

  it('X.509 version 1', () => {
    openssl(
      'req',
      '-new',
      '-newkey',
      'rsa:2048',
      '-nodes',
      '-keyout',
      'v1.key',
      '-subj',
      '/CN=v1',
      '-out',
      'v1.csr',
    )
    openssl('x509', '-req', '-in', 'v1.csr', '-signkey', 'v1.key', '-days', '3', '-out', 'v1.cer')
    expect(codeOf(() => checkVaultCertificate(readFileSync(join(dir, 'v1.cer')), Date.now()))).toBe(
      'vault-certificate-not-v3',
    )
  })

  it.each([
    ['an empty file', Buffer.alloc(0)],
    ['text', Buffer.from('not a certificate')],
    ['a PEM block of noise', '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n'],
    ['DER of noise', Buffer.from([0x30, 0x82, 0xff, 0xff, 1, 2, 3])],
  ])('%s', (_what, content) => {
    expect(codeOf(() => checkVaultCertificate(content, now))).toBe('vault-certificate-unreadable')
  })

  it('a private key: named as such, and not quoted', () => {
    const error = (() => {
      try {
        return checkVaultCertificate(generated.privateKeyPem, now)
      } catch (caught) {
        return errorDocument(caught)
      }
    })()
    expect(error).toMatchObject({
      code: 'vault-certificate-unreadable',
      message: expect.stringContaining('"PRIVATE KEY"'),
    })
    expect(JSON.stringify(error)).not.toContain(generated.privateKeyPem.split('\n')[2])
  })
})

describe('a vault certificate that keeps the rules', () => {
  it('is accepted as PEM, as DER, with a key beside it, issued by anyone', async () => {
    const issued = await makeIssuedCertificate(good)
    const wanted = new X509Certificate(issued.certificatePem)
    for (const form of [issued.certificatePem, wanted.raw, issued.privateKeyPem + issued.certificatePem]) {
      const checked = checkVaultCertificate(form, now)
      expect(checked).toMatchObject({ subject: 'CN=issued', notBeforeMs: now - dayMs })
      expect(checked.thumbprint).toMatch(/^[0-9A-F]{64}$/)
      expect(checked.pem).not.toContain('PRIVATE')
      expect(new X509Certificate(checked.pem).raw.equals(wanted.raw)).toBe(true)
    }
  })

  it('may be valid for three years to the second, on P-256, with digitalSignature', async () => {
    const { certificatePem } = await makeCertificate({
      notBefore: new Date(Date.UTC(2026, 0, 1)),
      notAfter: new Date(Date.UTC(2029, 0, 1)),
      keyUsage: KeyUsageFlags.digitalSignature,
    })
    expect(checkVaultCertificate(certificatePem, now).notAfterMs).toBe(Date.UTC(2029, 0, 1))
  })
})

describe('a generated vault certificate', () => {
  it('passes every rule for as long as certificates may live', () => {
    expect(checkVaultCertificate(generated.certificatePem, now).subject).toBe('CN=Contoso DR')
  })

  it('is refused a longer life', async () => {
    await expect(generateVaultCertificate({ subject: 'x', days: 1096, nowMs: now })).rejects.toMatchObject({
      code: 'request-invalid',
    })
  })

  it('comes as .pfx that Node, openssl and `register` open with its password only', () => {
    const pfx = generated.pfx('pass word')
    expect(() => createSecureContext({ pfx, passphrase: 'pass word' })).not.toThrow()
    const path = join(dir, 'vault.pfx')
    writeFileSync(path, pfx)
    const listed = spawnSync('openssl', [
      'pkcs12',
      '-in',
      path,
      '-passin',
      'pass:pass word',
      '-noenc',
      '-info',
    ])
    expect(listed.status).toBe(0)
    expect(String(listed.stderr)).toContain('AES-256-CBC')
    const opened = openKeyAndCertificate(readKeyAndCertificate(path, 'pass word'))
    expect(opened.certificatePem.trim()).toBe(generated.certificatePem.trim())
    expect(codeOf(() => generated.pfx('pässword'))).toBe('request-invalid')
    expect(codeOf(() => openKeyAndCertificate({ pfx, password: 'other' }))).toBe('key-pair-unreadable')
  })
})

describe('certificate and private key on a server', () => {
  it.each(['-aes256', '-legacy'])(
    'a .pfx of openssl pkcs12 %s with an EC key and a chain is opened',
    async (how) => {
      const pair = await makeIssuedCertificate(good)
      const other = await makeCertificate(good)
      const path = (name: string) => join(dir, name)
      writeFileSync(path('pair.pem'), pair.privateKeyPem + pair.certificatePem)
      writeFileSync(path('chain.pem'), other.certificatePem)
      const scheme = how === '-legacy' ? ['-legacy'] : ['-keypbe', 'AES-256-CBC', '-certpbe', 'AES-256-CBC']
      openssl(
        'pkcs12',
        '-export',
        ...scheme,
        '-in',
        'pair.pem',
        '-certfile',
        'chain.pem',
        '-passout',
        'pass:x',
        '-out',
        'o.pfx',
      )
      const opened = openKeyAndCertificate({ pfx: readFileSync(path('o.pfx')), password: 'x' })
      expect(opened.certificatePem.trim()).toBe(pair.certificatePem.trim())
    },
  )

  it('a key of another certificate, a certificate alone and noise have an error each, without secrets', async () => {
    const [one, two] = [await makeCertificate(good), await makeCertificate(good)]
    expect(codeOf(() => openKeyAndCertificate({ pem: one.certificatePem + two.privateKeyPem }))).toBe(
      'key-pair-mismatch',
    )
    expect(codeOf(() => openKeyAndCertificate({ pem: one.certificatePem }))).toBe('key-pair-unreadable')
    expect(codeOf(() => openKeyAndCertificate({ pfx: Buffer.from('noise'), password: 'x' }))).toBe(
      'key-pair-unreadable',
    )
    expect(codeOf(() => readKeyAndCertificate(join(dir, 'absent.pfx'), ''))).toBe('key-pair-unreadable')
  })
})
