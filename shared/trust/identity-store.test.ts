import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { errorDocument } from '../errors/hotsite-error.ts'
import { serverId, vaultId } from '../ids.ts'
import { identityPath, loadIdentity, type ServerIdentity, saveIdentity } from './identity-store.ts'
import { generateKeys } from './keys.ts'
import { ensurePendingKeys, pendingKeysPath } from './pending-keys.ts'
import { writeSecretFile } from './secret-file.ts'

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'hotsite-identity-'))
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

const keys = generateKeys()
const identity: ServerIdentity = {
  vaultId: vaultId.parse('vault-1'),
  vaultName: 'Contoso',
  serverId: serverId.parse('server-1'),
  kind: 'agent',
  name: 'host-1',
  keys,
  membership: Uint8Array.of(1, 2, 3),
  vaultPublicKey: generateKeys().publicKey,
  generation: 2,
  coordinatorCertificatePem: '-----BEGIN CERTIFICATE-----',
  channelAddresses: [{ host: 'coordinator.example', port: 8443 }],
  registeredAtMs: 5,
}

function refusal() {
  try {
    return { code: 'accepted', message: loadIdentity(dir).name, recommendedAction: '' }
  } catch (error) {
    return errorDocument(error)
  }
}

describe('the identity of a server', () => {
  it('is read as it was written, readable by its owner only, with no leftover beside it', () => {
    saveIdentity(dir, identity)
    expect(loadIdentity(dir)).toEqual(identity)
    expect(statSync(identityPath(dir)).mode & 0o777).toBe(0o600)
    expect(readdirSync(dir)).toEqual(['identity.json'])
  })

  it('that is absent: the command to run is told', () => {
    expect(refusal()).toMatchObject({
      code: 'not-registered',
      recommendedAction: expect.stringContaining('hotsite register --kind'),
    })
  })

  it.each([0o640, 0o604, 0o660])('readable or writable by others (mode %o) is refused', (mode) => {
    saveIdentity(dir, identity)
    chmodSync(identityPath(dir), mode)
    expect(refusal()).toMatchObject({
      code: 'secret-file-exposed',
      message: expect.stringContaining(`0${mode.toString(8)}`),
    })
  })

  it('that is damaged or of a newer version is refused without its secret in the error', () => {
    saveIdentity(dir, identity)
    const text = readFileSync(identityPath(dir), 'utf8')
    const secret = Buffer.from(keys.secretKey).toString('base64')
    for (const [content, code] of [
      [text.slice(0, -10), 'secret-file-damaged'],
      [text.replace('"server-1"', '"/etc/passwd"'), 'secret-file-damaged'],
      [text.replace(secret, secret.slice(4)), 'secret-file-damaged'],
      [text.replace('"version": 1', '"version": 2'), 'data-version-unknown'],
      ['', 'secret-file-damaged'],
    ] as const) {
      writeFileSync(identityPath(dir), content)
      const error = refusal()
      expect(error.code).toBe(code)
      expect(JSON.stringify(error)).not.toContain(secret.slice(4))
    }
  })
})

it('a leftover temporary file that others may read does not lend its mode to a secret', () => {
  const path = join(dir, 'secret')
  writeFileSync(`${path}.tmp`, 'left over', { mode: 0o644 })
  writeSecretFile(path, 'new')
  expect(statSync(path).mode & 0o777).toBe(0o600)
  expect(readFileSync(path, 'utf8')).toBe('new')
})

it('I4: pending keys are used again for the same registration only', () => {
  const registration = { vaultId: identity.vaultId, kind: 'agent', name: 'host-1' } as const
  const first = ensurePendingKeys(dir, registration)
  expect(ensurePendingKeys(dir, registration)).toEqual(first)
  expect(statSync(pendingKeysPath(dir)).mode & 0o777).toBe(0o600)
  expect(ensurePendingKeys(dir, { ...registration, name: 'host-2' })).not.toEqual(first)
  writeFileSync(pendingKeysPath(dir), 'damaged')
  expect(ensurePendingKeys(dir, registration).publicKey).toHaveLength(32)
})
