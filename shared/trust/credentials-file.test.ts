import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { errorDocument } from '../errors/hotsite-error.ts'
import { vaultId } from '../ids.ts'
import { issueCredentials, parseCredentials, readCredentials } from './credentials-file.ts'
import { generateKeys } from './keys.ts'
import { registrationLimits } from './trust-limits.ts'

const now = Date.UTC(2026, 5, 15)
const keys = generateKeys()
const token = 'hst1.a-very-secret-token.x'
const given = {
  vaultName: 'Contoso',
  registrationUrls: [{ host: 'coordinator.example', port: 8444 }],
  channelAddresses: [{ host: 'coordinator.example', port: 8443 }],
  coordinatorCertificatePem: '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n',
  vaultCertificateThumbprint: 'AB'.repeat(32),
  token,
  issuedAtMs: now,
  expiresAtMs: now + registrationLimits.credentialsLifetimeMs,
}
const signer = { vaultId: vaultId.parse('vault-1'), generation: 3, ...keys }
const text = issueCredentials({ signer, ...given })

function refusal(content: string, nowMs = now) {
  try {
    parseCredentials(content, { nowMs, name: 'c.json' })
    return { code: 'accepted', text: '' }
  } catch (error) {
    const document = errorDocument(error)
    return { code: document.code, text: JSON.stringify(document) }
  }
}

function changed(change: (document: Record<string, unknown>) => void): string {
  const document = JSON.parse(text) as Record<string, unknown>
  change(document)
  return JSON.stringify(document)
}

describe('a credentials file', () => {
  it('says what was put in', () => {
    const { vaultPublicKey, ...read } = parseCredentials(text, { nowMs: now, name: 'c.json' })
    expect(read).toEqual({ ...given, vaultId: 'vault-1', generation: 3 })
    expect(Buffer.from(vaultPublicKey).equals(keys.publicKey)).toBe(true)
  })

  it('may be laid out anew, with keys in another order and a byte-order mark, and lasts five days', () => {
    const reversed = Object.fromEntries(Object.entries(JSON.parse(text) as object).reverse())
    const content = `\uFEFF${JSON.stringify(reversed, null, '\t')}`
    expect(refusal(content, now + 5 * 86_400_000 - 1).code).toBe('accepted')
    expect(refusal(content, now + 5 * 86_400_000).code).toBe('credentials-expired')
  })

  it.each([
    ['another kind of file', '{"format":"package-lock"}', 'credentials-not-a-credentials-file'],
    ['an array', '[]', 'credentials-not-a-credentials-file'],
    ['cut off', text.slice(0, -40), 'credentials-not-a-credentials-file'],
    ['a certificate', given.coordinatorCertificatePem, 'credentials-not-a-credentials-file'],
    ['of version 2', changed((d) => Object.assign(d, { version: 2 })), 'credentials-version-unknown'],
    ['prolonged', changed((d) => Object.assign(d, { expiresAtMs: now * 2 })), 'credentials-altered'],
    [
      'with another address',
      changed((d) => Object.assign(d, { registrationUrls: [{ host: 'x', port: 1 }] })),
      'credentials-altered',
    ],
    ['with a field more', changed((d) => Object.assign(d, { note: '' })), 'credentials-altered'],
    ['with a field less', changed((d) => delete d['token']), 'credentials-altered'],
    [
      'with a token of the wrong kind',
      changed((d) => Object.assign(d, { token: [token] })),
      'credentials-altered',
    ],
    [
      'with a vault key that is none',
      changed((d) => Object.assign(d, { vaultPublicKey: 'AAAA' })),
      'credentials-altered',
    ],
  ])('that is %s is refused, without its token in the error', (_what, content, code) => {
    const error = refusal(content)
    expect(error.code).toBe(code)
    expect(error.text).not.toContain(token)
  })

  it('from the future tells that the clock here is behind; minutes are forgiven', () => {
    expect(refusal(text, now - 14 * 60_000).code).toBe('accepted')
    expect(refusal(text, now - 3_600_000).code).toBe('clock-skew')
  })

  it('with any one character changed is refused, or says the very same', () => {
    const original = parseCredentials(text, { nowMs: now, name: 'c.json' })
    const anyChange = fc.record({ at: fc.nat(text.length - 1), to: fc.integer({ min: 32, max: 126 }) })
    // fast-check prints the seed of a failure.
    fc.assert(
      fc.property(anyChange, ({ at, to }) => {
        const content = text.slice(0, at) + String.fromCharCode(to) + text.slice(at + 1)
        if (refusal(content).code !== 'accepted') return
        expect(parseCredentials(content, { nowMs: now, name: 'c.json' })).toEqual(original)
      }),
      { numRuns: 300 },
    )
  })

  it('is read from disk; a path that leads nowhere is named', () => {
    const dir = mkdtempSync(join(tmpdir(), 'hotsite-credentials-'))
    const path = join(dir, 'c.json')
    writeFileSync(path, text)
    expect(readCredentials(path, now).token).toBe(token)
    rmSync(dir, { recursive: true })
    expect(() => readCredentials(path, now)).toThrow(path)
  })
})
