import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { vaultId } from '#shared/ids.ts'
import { FailureLimiter } from './failure-limiter.ts'
import { issueToken, judgeToken } from './token.ts'
import { ensureVaultKey, loadVaultKey, regenerateVaultKey, vaultKeyPath } from './vault-key.ts'

const id = vaultId.parse('vault-1')
let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'hotsite-vault-key-'))
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

describe('the key of a vault', () => {
  it('is made once, kept in a file of mode 0600 in a folder of mode 0700', () => {
    const key = ensureVaultKey({ dataDir: dir, vaultId: id, nowMs: 7 })
    expect(key).toMatchObject({ vaultId: id, generation: 1, createdAtMs: 7 })
    expect(ensureVaultKey({ dataDir: dir, vaultId: id, nowMs: 8 })).toEqual(key)
    expect(loadVaultKey(dir, id)).toEqual(key)
    expect(statSync(vaultKeyPath(dir, id)).mode & 0o777).toBe(0o600)
    expect(statSync(join(dir, 'vaults', id)).mode & 0o777).toBe(0o700)
  })

  it('regenerated is another one of the next generation, also when the file was lost', () => {
    const first = ensureVaultKey({ dataDir: dir, vaultId: id, nowMs: 1 })
    const second = regenerateVaultKey({ dataDir: dir, vaultId: id, nowMs: 2, previousGeneration: 1 })
    expect(second.generation).toBe(2)
    expect(Buffer.from(second.publicKey).equals(first.publicKey)).toBe(false)
    expect(loadVaultKey(dir, id)).toEqual(second)
    rmSync(vaultKeyPath(dir, id))
    expect(
      regenerateVaultKey({ dataDir: dir, vaultId: id, nowMs: 3, previousGeneration: 2 }).generation,
    ).toBe(3)
  })

  it('absent, exposed, damaged or of another vault is an error each', () => {
    const path = vaultKeyPath(dir, id)
    const code = (wanted: string) => expect.objectContaining({ code: wanted })
    expect(() => loadVaultKey(dir, id)).toThrow(code('vault-key-missing'))
    ensureVaultKey({ dataDir: dir, vaultId: id, nowMs: 1 })
    chmodSync(path, 0o644)
    expect(() => loadVaultKey(dir, id)).toThrow(code('secret-file-exposed'))
    chmodSync(path, 0o600)
    writeFileSync(path, readFileSync(path, 'utf8').replace('vault-1', 'vault-2'))
    expect(() => loadVaultKey(dir, id)).toThrow(code('secret-file-damaged'))
    writeFileSync(path, '{')
    expect(() => loadVaultKey(dir, id)).toThrow(code('secret-file-damaged'))
  })
})

describe('a registration token', () => {
  it('is valid until it expires, under the key that issued it, unaltered', () => {
    const key = ensureVaultKey({ dataDir: dir, vaultId: id, nowMs: 1 })
    const token = issueToken(key, { expiresAtMs: 1000 })
    expect(issueToken(key, { expiresAtMs: 1000 })).not.toBe(token)
    expect(judgeToken(key, token, 999)).toBe('valid')
    expect(judgeToken(key, token, 1000)).toBe('expired')
    const otherVault = ensureVaultKey({ dataDir: dir, vaultId: vaultId.parse('vault-2'), nowMs: 1 })
    expect(judgeToken(otherVault, token, 1)).toBe('unknown')
    const next = regenerateVaultKey({ dataDir: dir, vaultId: id, nowMs: 2, previousGeneration: 1 })
    expect(judgeToken(next, token, 1)).toBe('older-generation')
  })

  it('altered anywhere, cut or made up is unknown', () => {
    const key = ensureVaultKey({ dataDir: dir, vaultId: id, nowMs: 1 })
    const token = issueToken(key, { expiresAtMs: 1000 })
    const [head, claims = '', mac] = token.split('.')
    const longer = Buffer.from(claims, 'base64url').toString().replace('1000', '9000')
    const forged = `${head}.${Buffer.from(longer).toString('base64url')}.${mac}`
    for (const bad of [
      forged,
      '',
      '...',
      token.slice(0, -3),
      `${token}.x`,
      `x${token}`,
      `${head}.e30.${mac}`,
    ])
      expect(judgeToken(key, bad, 1)).toBe('unknown')
  })
})

describe('the limit on failures', () => {
  it('blocks an address for the rest of its window, and forgets the address seen first', () => {
    const limiter = new FailureLimiter({ maxFailures: 2, failureWindowMs: 100, maxTrackedAddresses: 2 })
    expect([limiter.fail('a', 0), limiter.isBlocked('a', 1), limiter.fail('a', 2)]).toEqual([
      false,
      false,
      true,
    ])
    expect([limiter.isBlocked('a', 99), limiter.isBlocked('b', 99), limiter.isBlocked('a', 100)]).toEqual([
      true,
      false,
      false,
    ])
    limiter.fail('a', 200)
    limiter.fail('a', 200)
    limiter.fail('b', 200)
    limiter.fail('c', 200)
    expect([limiter.isBlocked('a', 201), limiter.isBlocked('b', 201)]).toEqual([false, false])
  })
})
