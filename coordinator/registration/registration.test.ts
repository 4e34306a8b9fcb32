import { rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer as createTcpServer } from 'node:net'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { lockDataDir } from '#shared/data-dir.ts'
import { identityPath, loadIdentity } from '#shared/trust/identity-store.ts'
import { verifyMembership } from '#shared/trust/membership.ts'
import { pendingKeysPath } from '#shared/trust/pending-keys.ts'
import { dayMs, makeCertificate } from '#shared/trust/testing/offending-certificates.ts'
import {
  channelAddresses,
  clockOff,
  credentialsFile,
  idA,
  listen,
  pem,
  refusal,
  register,
  restartListener,
  unusedPort,
  useRegistrationSite,
} from './testing/registration-site.ts'
import { regenerateVaultKey, vaultKeyPath } from './vault-key.ts'

const site = useRegistrationSite()

describe('a complete registration', () => {
  it('gives the server an identity signed by the vault, in a file of mode 0600', async () => {
    const identity = await register(site)
    expect(loadIdentity(site.dataDir)).toEqual(identity)
    expect(statSync(identityPath(site.dataDir)).mode & 0o777).toBe(0o600)
    expect(statSync(site.dataDir).mode & 0o777).toBe(0o700)
    expect(statSync(vaultKeyPath(site.dir, idA)).mode & 0o777).toBe(0o600)
    expect(() => statSync(pendingKeysPath(site.dataDir))).toThrow()
    expect(identity).toMatchObject({ vaultId: idA, kind: 'agent', name: 'host-1', channelAddresses })
    expect(identity.coordinatorCertificatePem).toBe(site.tls.certificatePem)
    const membership = verifyMembership({
      encoded: identity.membership,
      vaultPublicKey: site.vaults.vaultKey(idA).publicKey,
      nowMs: Date.now(),
      isRevoked: () => false,
      vaultId: idA,
      generation: 1,
    })
    expect(membership).toMatchObject({ serverId: identity.serverId, kind: 'agent', name: 'host-1' })
    expect(Buffer.from(membership.publicKey).equals(identity.keys.publicKey)).toBe(true)
    expect(site.vaults.servers).toMatchObject([
      { serverId: identity.serverId, host: 'host-1.example', replace: false },
    ])
  })

  it('goes on to the next address when one is dead', async () => {
    const dead = await unusedPort()
    const { path } = credentialsFile(site, {
      addresses: [{ host: '127.0.0.1', port: dead }, site.listener.address],
    })
    expect((await register(site, { credentialsPath: path })).vaultId).toBe(idA)
  })

  it('uses one credentials file for many servers', async () => {
    const { path } = credentialsFile(site)
    await register(site, { credentialsPath: path })
    await register(site, { credentialsPath: path, name: 'host-2', dataDir: join(site.dir, 'second') })
    await register(site, { credentialsPath: path, kind: 'provider', dataDir: join(site.dir, 'third') })
    expect(site.vaults.servers.map((server) => `${server.kind} ${server.name}`)).toEqual([
      'agent host-1',
      'agent host-2',
      'provider host-1',
    ])
  })

  it('works at once with a vault certificate that replaced another, and no longer with the old one', async () => {
    site.vaults.replaceVault(idA, { certificatePem: site.stranger.certificatePem })
    expect((await refusal(site)).code).toBe('registration-certificate-refused')
    expect((await register(site, { keyAndCertificate: pem(site.stranger) })).vaultId).toBe(idA)
  })
})

it('the vault certificate may come from an authority the coordinator does not know', async () => {
  site.vaults.replaceVault(idA, { certificatePem: site.pairB.certificatePem })
  expect((await register(site, { keyAndCertificate: pem(site.pairB) })).vaultId).toBe(idA)
})

describe('registering again', () => {
  it('is refused on a data folder with an identity, and replaces it on request, revoking the old one', async () => {
    const first = await register(site)
    const second = await refusal(site)
    expect(second).toMatchObject({ code: 'already-registered', details: { serverId: first.serverId } })
    expect(loadIdentity(site.dataDir)).toEqual(first)
    const replaced = await register(site, { replace: true })
    expect(replaced.serverId).not.toBe(first.serverId)
    expect(Buffer.from(replaced.keys.publicKey).equals(first.keys.publicKey)).toBe(false)
    expect(site.vaults.revoked).toEqual([first.serverId])
  })

  it('under a name that is taken is refused with the reason, and revokes that server on request', async () => {
    const first = await register(site)
    const elsewhere = join(site.dir, 'elsewhere')
    const refused = await refusal(site, { dataDir: elsewhere })
    expect(refused).toMatchObject({
      code: 'server-name-taken',
      details: { existingServerId: first.serverId },
    })
    expect(() => loadIdentity(elsewhere)).toThrow()
    const second = await register(site, { dataDir: elsewhere, replace: true })
    expect(site.vaults.revoked).toEqual([first.serverId])
    expect(second.serverId).not.toBe(first.serverId)
  })

  it('beside a daemon on the same data folder is refused, and nothing is recorded', async () => {
    const first = await register(site)
    {
      using _daemon = lockDataDir(site.dataDir)
      expect(await refusal(site, { replace: true })).toMatchObject({ code: 'data-dir-in-use' })
    }
    expect(loadIdentity(site.dataDir).serverId).toBe(first.serverId)
    expect(site.vaults.revoked).toEqual([])
    await register(site, { replace: true })
    expect(site.vaults.revoked).toEqual([first.serverId])
  })

  it('I4: an answer that was lost leads to the same server', async () => {
    const lossy = createTcpServer((socket) => socket.destroy())
    const port = await listen(lossy)
    const { path } = credentialsFile(site, { addresses: [{ host: '127.0.0.1', port }] })
    await refusal(site, { credentialsPath: path })
    const first = await register(site)
    // The crash between the coordinator's commit and our file: keys pending, no identity.
    const kept = Buffer.from(first.keys.secretKey).toString('base64')
    rmSync(identityPath(site.dataDir))
    const pending = { vaultId: idA, kind: 'agent', name: 'host-1', secretKey: kept }
    writeFileSync(pendingKeysPath(site.dataDir), JSON.stringify(pending), { mode: 0o600 })
    const second = await register(site)
    expect(second.serverId).toBe(first.serverId)
    expect(site.vaults.servers).toHaveLength(1)
    lossy.close()
  })

  it('after the vault key was regenerated keeps the server id under the new generation', async () => {
    const old = credentialsFile(site)
    const first = await register(site)
    const key = regenerateVaultKey({
      dataDir: site.dir,
      vaultId: idA,
      nowMs: Date.now(),
      previousGeneration: 1,
    })
    site.vaults.replaceVault(idA, { key })
    expect(await refusal(site, { credentialsPath: old.path, dataDir: join(site.dir, 'new') })).toMatchObject({
      code: 'credentials-generation',
    })
    const second = await register(site)
    expect(second).toMatchObject({ serverId: first.serverId, generation: 2 })
    expect(() =>
      verifyMembership({
        encoded: first.membership,
        vaultPublicKey: key.publicKey,
        nowMs: Date.now(),
        isRevoked: () => false,
        generation: 2,
      }),
    ).toThrow(expect.objectContaining({ code: 'membership-generation' }))
  })
})

describe('a membership that ends soon', () => {
  it('is renewed by registering again; the server keeps its id and its keys', async () => {
    const validity = {
      notBefore: new Date(Date.now() - dayMs),
      notAfter: new Date(Date.now() + 3 * 365 * dayMs),
    }
    const lasting = await makeCertificate(validity)
    site.vaults.replaceVault(idA, { certificatePem: lasting.certificatePem })
    const first = await register(site, { keyAndCertificate: pem(lasting) })
    const inTime = (days: number) => {
      const clock = clockOff(days * dayMs)
      const { path } = credentialsFile(site, { nowMs: clock.now() })
      return { clock, credentialsPath: path, keyAndCertificate: pem(lasting) }
    }
    expect((await refusal(site, inTime(700))).code).toBe('already-registered')
    await restartListener(site, { clock: clockOff(740 * dayMs) })
    const second = await register(site, inTime(740))
    expect(second).toMatchObject({ serverId: first.serverId, keys: first.keys })
    expect(second.membership).not.toEqual(first.membership)
  })
})
