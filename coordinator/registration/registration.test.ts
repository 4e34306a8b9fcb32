import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer as createHttpsServer } from 'node:https'
import { createServer as createTcpServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect } from 'node:tls'
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { Clock } from '#shared/clock.ts'
import { systemClock } from '#shared/clock.ts'
import { errorDocument } from '#shared/errors/hotsite-error.ts'
import { vaultId } from '#shared/ids.ts'
import { readCredentials } from '#shared/trust/credentials-file.ts'
import { identityPath, loadIdentity } from '#shared/trust/identity-store.ts'
import { generateKeys } from '#shared/trust/keys.ts'
import { verifyMembership } from '#shared/trust/membership.ts'
import { pendingKeysPath } from '#shared/trust/pending-keys.ts'
import { type RegisterServerOptions, registerServer } from '#shared/trust/register.ts'
import { type RegistrationTarget, requestRegistration } from '#shared/trust/registration-connection.ts'
import { registrationServerName, signRequest } from '#shared/trust/registration-protocol.ts'
import {
  dayMs,
  type MadeCertificate,
  makeCertificate,
  makeIssuedCertificate,
} from '#shared/trust/testing/offending-certificates.ts'
import { makeTlsIdentity, type TlsIdentity } from '#shared/trust/tls-identity.ts'
import { issueVaultCredentials } from './credentials.ts'
import { type RegistrationListener, startRegistrationListener } from './listener.ts'
import { collectingLog, MemoryTrustSource } from './testing.ts'
import { ensureVaultKey, regenerateVaultKey, vaultKeyPath } from './vault-key.ts'

const idA = vaultId.parse('vault-a')
const idB = vaultId.parse('vault-b')
const channelAddresses = [{ host: 'coordinator.example', port: 8443 }]

let tls: TlsIdentity
let pairA: MadeCertificate
let pairB: MadeCertificate
let stranger: MadeCertificate
let dir: string
let dataDir: string
let vaults: MemoryTrustSource
let listener: RegistrationListener
let logLines: string[]

beforeAll(async () => {
  const validity = {
    notBefore: new Date(Date.now() - 30 * dayMs),
    notAfter: new Date(Date.now() + 30 * dayMs),
  }
  tls = await makeTlsIdentity('coordinator')
  pairA = await makeCertificate(validity)
  // Same subject name, another key; and one of an authority the coordinator does not know.
  pairB = await makeIssuedCertificate({ ...validity, name: 'issued' })
  stranger = await makeCertificate(validity)
})

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'hotsite-registration-'))
  dataDir = join(dir, 'server')
  logLines = []
  vaults = new MemoryTrustSource()
  for (const [id, pair] of [
    [idA, pairA],
    [idB, pairB],
  ] as const) {
    const key = ensureVaultKey({ dataDir: dir, vaultId: id, nowMs: Date.now() })
    vaults.vaults.push({ vaultId: id, name: id, certificatePem: pair.certificatePem, key })
  }
  listener = await startListener()
})

afterEach(async () => {
  await listener[Symbol.asyncDispose]()
  rmSync(dir, { recursive: true, force: true })
})

function startListener(options: { clock?: Clock; port?: number; limits?: object } = {}) {
  return startRegistrationListener({
    host: '127.0.0.1',
    port: options.port ?? 0,
    tls,
    channelAddresses,
    vaults,
    clock: options.clock ?? systemClock,
    log: collectingLog(logLines),
    ...(options.limits ? { limits: options.limits } : {}),
  })
}

/** A credentials file of vault A as it is now, at `path`. */
function credentialsFile(
  options: { nowMs?: number; addresses?: { host: string; port: number }[]; pin?: string } = {},
) {
  const vault = vaults.vaults[0]
  if (!vault) throw new Error('no vault')
  const { content } = issueVaultCredentials({
    key: vault.key,
    vaultName: 'Contoso',
    vaultCertificatePem: vault.certificatePem,
    registrationUrls: options.addresses ?? [listener.address],
    channelAddresses,
    coordinatorCertificatePem: options.pin ?? tls.certificatePem,
    nowMs: options.nowMs ?? Date.now(),
  })
  const path = join(dir, `credentials-${randomUUID()}.json`)
  writeFileSync(path, content)
  return { path, token: String(JSON.parse(content).token) }
}

function pem(pair: MadeCertificate) {
  return { pem: pair.privateKeyPem + pair.certificatePem }
}

function register(options: Partial<RegisterServerOptions> = {}) {
  return registerServer({
    credentialsPath: options.credentialsPath ?? credentialsFile().path,
    keyAndCertificate: pem(pairA),
    kind: 'agent',
    name: 'host-1',
    host: 'host-1.example',
    dataDir,
    clock: systemClock,
    timeoutMs: 3000,
    ...options,
  })
}

async function refusal(options: Partial<RegisterServerOptions> = {}) {
  const error = await register(options).then(
    () => undefined,
    (caught: unknown) => caught,
  )
  const document = errorDocument(error)
  return { ...document, text: JSON.stringify(document) }
}

function clockOff(byMs: number): Clock {
  return { ...systemClock, now: () => Date.now() + byMs }
}

describe('a complete registration', () => {
  it('gives the server an identity signed by the vault, in a file of mode 0600', async () => {
    const identity = await register()
    expect(loadIdentity(dataDir)).toEqual(identity)
    expect(statSync(identityPath(dataDir)).mode & 0o777).toBe(0o600)
    expect(statSync(dataDir).mode & 0o777).toBe(0o700)
    expect(statSync(vaultKeyPath(dir, idA)).mode & 0o777).toBe(0o600)
    expect(() => statSync(pendingKeysPath(dataDir))).toThrow()
    expect(identity).toMatchObject({ vaultId: idA, kind: 'agent', name: 'host-1', channelAddresses })
    expect(identity.coordinatorCertificatePem).toBe(tls.certificatePem)
    const membership = verifyMembership({
      encoded: identity.membership,
      vaultPublicKey: vaults.vaultKey(idA).publicKey,
      nowMs: Date.now(),
      isRevoked: () => false,
      vaultId: idA,
      generation: 1,
    })
    expect(membership).toMatchObject({ serverId: identity.serverId, kind: 'agent', name: 'host-1' })
    expect(Buffer.from(membership.publicKey).equals(identity.keys.publicKey)).toBe(true)
    expect(vaults.servers).toMatchObject([
      { serverId: identity.serverId, host: 'host-1.example', replace: false },
    ])
  })

  it('goes on to the next address when one is dead', async () => {
    const dead = await unusedPort()
    const { path } = credentialsFile({ addresses: [{ host: '127.0.0.1', port: dead }, listener.address] })
    expect((await register({ credentialsPath: path })).vaultId).toBe(idA)
  })

  it('uses one credentials file for many servers', async () => {
    const { path } = credentialsFile()
    await register({ credentialsPath: path })
    await register({ credentialsPath: path, name: 'host-2', dataDir: join(dir, 'second') })
    await register({ credentialsPath: path, kind: 'provider', dataDir: join(dir, 'third') })
    expect(vaults.servers.map((server) => `${server.kind} ${server.name}`)).toEqual([
      'agent host-1',
      'agent host-2',
      'provider host-1',
    ])
  })

  it('works at once with a vault certificate that replaced another, and no longer with the old one', async () => {
    vaults.replaceVault(idA, { certificatePem: stranger.certificatePem })
    expect((await refusal()).code).toBe('registration-certificate-refused')
    expect((await register({ keyAndCertificate: pem(stranger) })).vaultId).toBe(idA)
  })
})

describe('registering again', () => {
  it('is refused on a data folder with an identity, and replaces it on request, revoking the old one', async () => {
    const first = await register()
    const second = await refusal()
    expect(second).toMatchObject({ code: 'already-registered', details: { serverId: first.serverId } })
    expect(loadIdentity(dataDir)).toEqual(first)
    const replaced = await register({ replace: true })
    expect(replaced.serverId).not.toBe(first.serverId)
    expect(Buffer.from(replaced.keys.publicKey).equals(first.keys.publicKey)).toBe(false)
    expect(vaults.revoked).toEqual([first.serverId])
  })

  it('under a name that is taken is refused with the reason, and revokes that server on request', async () => {
    const first = await register()
    const elsewhere = join(dir, 'elsewhere')
    const refused = await refusal({ dataDir: elsewhere })
    expect(refused).toMatchObject({
      code: 'server-name-taken',
      details: { existingServerId: first.serverId },
    })
    expect(() => loadIdentity(elsewhere)).toThrow()
    const second = await register({ dataDir: elsewhere, replace: true })
    expect(vaults.revoked).toEqual([first.serverId])
    expect(second.serverId).not.toBe(first.serverId)
  })

  it('I4: an answer that was lost leads to the same server', async () => {
    const lossy = createTcpServer((socket) => socket.destroy())
    const port = await listen(lossy)
    const { path } = credentialsFile({ addresses: [{ host: '127.0.0.1', port }] })
    await refusal({ credentialsPath: path })
    const first = await register()
    // The crash between the coordinator's commit and our file: keys pending, no identity.
    const kept = Buffer.from(first.keys.secretKey).toString('base64')
    rmSync(identityPath(dataDir))
    const pending = { vaultId: idA, kind: 'agent', name: 'host-1', secretKey: kept }
    writeFileSync(pendingKeysPath(dataDir), JSON.stringify(pending), { mode: 0o600 })
    const second = await register()
    expect(second.serverId).toBe(first.serverId)
    expect(vaults.servers).toHaveLength(1)
    lossy.close()
  })

  it('after the vault key was regenerated keeps the server id under the new generation', async () => {
    const old = credentialsFile()
    const first = await register()
    const key = regenerateVaultKey({ dataDir: dir, vaultId: idA, nowMs: Date.now(), previousGeneration: 1 })
    vaults.replaceVault(idA, { key })
    expect(await refusal({ credentialsPath: old.path, dataDir: join(dir, 'new') })).toMatchObject({
      code: 'credentials-generation',
    })
    const second = await register()
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
    vaults.replaceVault(idA, { certificatePem: lasting.certificatePem })
    const first = await register({ keyAndCertificate: pem(lasting) })
    const inTime = (days: number) => {
      const clock = clockOff(days * dayMs)
      const { path } = credentialsFile({ nowMs: clock.now() })
      return { clock, credentialsPath: path, keyAndCertificate: pem(lasting) }
    }
    expect((await refusal(inTime(700))).code).toBe('already-registered')
    await listener[Symbol.asyncDispose]()
    listener = await startListener({ clock: clockOff(740 * dayMs) })
    const second = await register(inTime(740))
    expect(second).toMatchObject({ serverId: first.serverId, keys: first.keys })
    expect(second.membership).not.toEqual(first.membership)
  })
})

describe('each thing that can be wrong has its own error, and leaves no identity behind', () => {
  afterEach(() => {
    expect(vaults.servers).toHaveLength(0)
    expect(() => loadIdentity(dataDir)).toThrow(expect.objectContaining({ code: 'not-registered' }))
  })

  it('the certificate of a stranger: told with both thumbprints', async () => {
    const error = await refusal({ keyAndCertificate: pem(stranger) })
    expect(error.code).toBe('registration-certificate-refused')
    expect(error.details['given']).not.toBe(error.details['expected'])
  })

  it('the certificate of another vault of the same coordinator', async () => {
    expect((await refusal({ keyAndCertificate: pem(pairB) })).code).toBe('registration-certificate-refused')
  })

  it('no certificate at all: TLS ends', async () => {
    const socket = connect({
      ...listener.address,
      ca: tls.certificatePem,
      servername: registrationServerName,
      checkServerIdentity: () => undefined,
    })
    const error = await new Promise<NodeJS.ErrnoException>((resolve) => socket.once('error', resolve))
    expect(error.code).toBe('ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED')
  })

  it('a server name the listener does not know: nobody is trusted', async () => {
    const body = 'GET / HTTP/1.1\r\nhost: x\r\n\r\n'
    expect(await raw(body, 'elsewhere.example')).toBe('')
    expect(await raw(body)).toContain('404')
  })

  it('a token of another vault in a file signed anew', async () => {
    const vault = vaults.vaults[0]
    const { path } = credentialsFile()
    const other = ensureVaultKey({ dataDir: join(dir, 'impostor'), vaultId: idA, nowMs: Date.now() })
    if (vault) vaults.replaceVault(idA, { key: other })
    expect((await refusal({ credentialsPath: path })).code).toBe('registration-token-invalid')
  })

  it('a request signed for another TLS connection (a relay), or altered after it was signed', async () => {
    const { path, token } = credentialsFile()
    const { vaultCertificateThumbprint } = readCredentials(path, Date.now())
    const keys = generateKeys()
    const publicKey = Buffer.from(keys.publicKey).toString('base64')
    const fields = {
      vaultId: idA,
      token,
      kind: 'agent',
      name: 'host-1',
      host: 'h',
      publicKey,
      replace: false,
    } as const
    const signed = (exporter: Uint8Array) =>
      signRequest({ ...fields, nowMs: Date.now() }, { exporter, secretKey: keys.secretKey })
    const target: RegistrationTarget = {
      address: listener.address,
      coordinatorCertificatePem: tls.certificatePem,
      vaultCertificateThumbprint,
      vaultKeyPair: pairA,
      timeoutMs: 3000,
    }
    const invalid = expect.objectContaining({ code: 'registration-proof-invalid' })
    await expect(requestRegistration(target, () => signed(Buffer.alloc(32)))).rejects.toEqual(invalid)
    const altered = requestRegistration(target, (exporter) => ({ ...signed(exporter), name: 'host-2' }))
    await expect(altered).rejects.toEqual(invalid)
  })

  it('an expired file; and one that expired by the coordinator’s clock only', async () => {
    const { path } = credentialsFile({ nowMs: Date.now() - 5 * dayMs - 1000 })
    expect((await refusal({ credentialsPath: path })).code).toBe('credentials-expired')
    expect((await refusal({ credentialsPath: path, clock: clockOff(-dayMs / 2) })).code).toBe(
      'credentials-expired',
    )
  })

  it('a vault the coordinator does not have', async () => {
    const { path } = credentialsFile()
    vaults.vaults.shift()
    vaults.vaults.push({
      ...vaults.vaults[0],
      vaultId: vaultId.parse('c'),
      certificatePem: pairA.certificatePem,
    } as never)
    expect((await refusal({ credentialsPath: path })).code).toBe('registration-vault-unknown')
  })

  it('a vault whose certificate was taken away since', async () => {
    const { path } = credentialsFile()
    vaults.replaceVault(idA, { certificatePem: null })
    expect((await refusal({ credentialsPath: path })).code).toBe('registration-certificate-refused')
  })

  it('clocks that differ by hours, in either direction', async () => {
    for (const hours of [-2, 2]) {
      const { path } = credentialsFile({ nowMs: Date.now() - 3 * 3_600_000 })
      const error = await refusal({ credentialsPath: path, clock: clockOff(hours * 3_600_000) })
      expect(error.code).toBe('clock-skew')
      expect(Math.round(Number(error.details['skewMs']) / 3_600_000)).toBe(hours)
    }
  })

  it('no coordinator there', async () => {
    const port = await unusedPort()
    const { path } = credentialsFile({ addresses: [{ host: '127.0.0.1', port }] })
    const error = await refusal({ credentialsPath: path })
    expect(error).toMatchObject({ code: 'coordinator-unreachable', retryable: true })
    expect(error.message).toContain(`127.0.0.1:${port}: ECONNREFUSED`)
  })

  it('a coordinator that accepts and says nothing', async () => {
    const mute = createTcpServer(() => {})
    const port = await listen(mute)
    const { path } = credentialsFile({ addresses: [{ host: '127.0.0.1', port }] })
    const error = await refusal({ credentialsPath: path, timeoutMs: 100 })
    expect(error).toMatchObject({
      code: 'coordinator-unreachable',
      message: expect.stringContaining('no answer in time'),
    })
    mute.close()
  })

  it('something else that answers: another certificate, or no TLS', async () => {
    const other = await makeTlsIdentity('impostor')
    const { path } = credentialsFile({ pin: other.certificatePem })
    expect((await refusal({ credentialsPath: path })).code).toBe('coordinator-certificate-mismatch')
    const http = createTcpServer((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'))
    const port = await listen(http)
    const plain = credentialsFile({ addresses: [{ host: '127.0.0.1', port }] })
    expect((await refusal({ credentialsPath: plain.path })).code).toBe('coordinator-certificate-mismatch')
    http.close()
  })

  it('an answer that is none', async () => {
    const odd = createHttpsServer({ key: tls.keyPem, cert: tls.certificatePem }, (_request, response) =>
      response.end('hello'),
    )
    const port = await listen(odd)
    const { path } = credentialsFile({ addresses: [{ host: '127.0.0.1', port }] })
    expect((await refusal({ credentialsPath: path })).code).toBe('registration-reply-invalid')
    odd.close()
    odd.closeAllConnections()
  })

  it('a coordinator that cannot read its vaults: it tells nothing of its insides, and logs all', async () => {
    vaults.failure = new Error('cannot open /var/lib/secret-place/coordinator.db')
    const error = await refusal()
    expect(error.code).toBe('internal')
    expect(error.text).not.toContain('secret-place')
    expect(logLines.join('\n')).toContain('secret-place')
  })
})

describe('limits', () => {
  it('failures from one address are limited, and told as such', async () => {
    await listener[Symbol.asyncDispose]()
    listener = await startListener({ limits: { maxFailures: 2 } })
    const attempt = () => refusal({ clock: clockOff(3_600_000) })
    expect((await attempt()).code).toBe('clock-skew')
    expect((await attempt()).code).toBe('clock-skew')
    expect((await attempt()).code).toBe('registration-rate-limited')
    expect(await refusal()).toMatchObject({ code: 'registration-rate-limited', retryable: true })
  })

  it('a request that is too large is refused, one that never ends is cut off', async () => {
    await listener[Symbol.asyncDispose]()
    listener = await startListener({ limits: { stepTimeoutMs: 300 } })
    const large = await raw(
      `POST /register HTTP/1.1\r\nhost: x\r\ncontent-length: 20000\r\n\r\n${'x'.repeat(20_000)}`,
    )
    expect(large).toContain('larger than 16384 bytes')
    const slow = await raw('POST /register HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{')
    expect(slow).toContain('408')
    expect(await raw('GET / HTTP/1.1\r\nhost: x\r\n\r\n')).toContain('404')
    expect(await raw('POST /register HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}')).toContain(
      'request-invalid',
    )
  })

  it('a port that is taken is an error with the address', async () => {
    await expect(startListener({ port: listener.address.port })).rejects.toMatchObject({
      code: 'registration-port-unavailable',
    })
  })
})

it('I15: no secret is in the log, in an error or in a reply', async () => {
  const secrets: string[] = []
  const texts: string[] = []
  const noteSecret = (bytes: Uint8Array) => {
    const buffer = Buffer.from(bytes)
    secrets.push(
      buffer.toString('base64'),
      buffer.toString('hex'),
      buffer.subarray(0, 32).toString('base64url'),
    )
  }
  for (const vault of vaults.vaults) noteSecret(vault.key.secretKey)
  const { path, token } = credentialsFile()
  secrets.push(token, token.slice(-20))
  secrets.push(...[pairA, pairB, stranger].map((pair) => String(pair.privateKeyPem.split('\n')[1])))
  const identity = await register({ credentialsPath: path })
  noteSecret(identity.keys.secretKey)
  texts.push((await refusal({ credentialsPath: path })).text)
  texts.push((await refusal({ credentialsPath: path, dataDir: join(dir, 'b') })).text)
  texts.push(
    (await refusal({ credentialsPath: path, dataDir: join(dir, 'c'), keyAndCertificate: pem(pairB) })).text,
  )
  vaults.failure = new Error('disk gone')
  texts.push((await refusal({ credentialsPath: path, dataDir: join(dir, 'd'), name: 'other' })).text)
  writeFileSync(path, `{"format": "hotsite-credentials", "version": 1, "token": "${token}"}`)
  texts.push((await refusal({ credentialsPath: path, dataDir: join(dir, 'e') })).text)
  writeFileSync(
    identityPath(dataDir),
    `{"secretKey": "${Buffer.from(identity.keys.secretKey).toString('base64')}" oops`,
  )
  texts.push(errorDocument(catchError(() => loadIdentity(dataDir))).message)
  expect(logLines.length).toBeGreaterThanOrEqual(5)
  for (const secret of secrets) {
    expect(secret.length).toBeGreaterThanOrEqual(20)
    for (const text of [...texts, ...logLines]) expect(text).not.toContain(secret)
  }
})

function catchError(run: () => unknown): unknown {
  try {
    return run()
  } catch (error) {
    return error
  }
}

/** Sends bytes over an accepted TLS connection and collects what comes back until it ends. */
function raw(text: string, servername = registrationServerName): Promise<string> {
  return new Promise((resolve) => {
    let answer = ''
    const socket = connect({
      ...listener.address,
      ca: tls.certificatePem,
      cert: pairA.certificatePem,
      key: pairA.privateKeyPem,
      servername,
      checkServerIdentity: () => undefined,
    })
    socket.on('data', (data: Buffer) => {
      answer += data.toString()
    })
    socket.on('error', () => {})
    socket.on('close', () => resolve(answer))
    socket.write(text)
  })
}

async function listen(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  if (typeof address !== 'object' || address === null) throw new Error('not a TCP address')
  return address.port
}

async function unusedPort(): Promise<number> {
  const server = createTcpServer()
  const port = await listen(server)
  await new Promise<void>((resolve) => server.close(() => resolve()))
  return port
}
