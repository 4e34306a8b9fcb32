import { createServer as createHttpsServer } from 'node:https'
import { createServer as createTcpServer } from 'node:net'
import { join } from 'node:path'
import { connect, getCACertificates, setDefaultCACertificates } from 'node:tls'
import { afterEach, describe, expect, it } from 'vitest'
import { vaultId } from '#shared/ids.ts'
import { readCredentials } from '#shared/trust/credentials-file.ts'
import { loadIdentity } from '#shared/trust/identity-store.ts'
import { generateKeys } from '#shared/trust/keys.ts'
import { type RegistrationTarget, requestRegistration } from '#shared/trust/registration-connection.ts'
import { registrationServerName, signRequest } from '#shared/trust/registration-protocol.ts'
import { dayMs } from '#shared/trust/testing/offending-certificates.ts'
import { makeTlsIdentity } from '#shared/trust/tls-identity.ts'
import {
  clockOff,
  credentialsFile,
  idA,
  listen,
  pem,
  raw,
  refusal,
  restartListener,
  unusedPort,
  useRegistrationSite,
} from './testing/registration-site.ts'
import { ensureVaultKey } from './vault-key.ts'

const site = useRegistrationSite()

describe('each thing that can be wrong has its own error, and leaves no identity behind', () => {
  afterEach(() => {
    expect(site.vaults.servers).toHaveLength(0)
    expect(() => loadIdentity(site.dataDir)).toThrow(expect.objectContaining({ code: 'not-registered' }))
  })

  it('the certificate of a stranger: told with both thumbprints', async () => {
    const error = await refusal(site, { keyAndCertificate: pem(site.stranger) })
    expect(error.code).toBe('registration-certificate-refused')
    expect(error.details['given']).not.toBe(error.details['expected'])
  })

  it('the certificate of another vault of the same coordinator', async () => {
    expect((await refusal(site, { keyAndCertificate: pem(site.pairB) })).code).toBe(
      'registration-certificate-refused',
    )
  })

  it('no certificate at all: TLS ends', async () => {
    const socket = connect({
      ...site.listener.address,
      ca: site.tls.certificatePem,
      servername: registrationServerName,
      checkServerIdentity: () => undefined,
    })
    const error = await new Promise<NodeJS.ErrnoException>((resolve) => socket.once('error', resolve))
    expect(error.code).toBe('ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED')
  })

  it('a server name the listener does not know: nobody is trusted, whatever this machine trusts', async () => {
    const before = getCACertificates('default')
    setDefaultCACertificates([site.pairA.certificatePem])
    try {
      await restartListener(site, {})
      const request = 'GET / HTTP/1.1\r\nhost: x\r\n\r\n'
      expect(await raw(site, request, 'elsewhere.example')).toBe('')
      expect(await raw(site, request)).toContain('404')
    } finally {
      setDefaultCACertificates(before)
    }
  })

  it('a token of another vault in a file signed anew', async () => {
    const vault = site.vaults.vaults[0]
    const { path } = credentialsFile(site)
    const other = ensureVaultKey({ dataDir: join(site.dir, 'impostor'), vaultId: idA, nowMs: Date.now() })
    if (vault) site.vaults.replaceVault(idA, { key: other })
    expect((await refusal(site, { credentialsPath: path })).code).toBe('registration-token-invalid')
  })

  it('a request signed for another TLS connection (a relay), or altered after it was signed', async () => {
    const { path, token } = credentialsFile(site)
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
      address: site.listener.address,
      coordinatorCertificatePem: site.tls.certificatePem,
      vaultCertificateThumbprint,
      vaultKeyPair: site.pairA,
      timeoutMs: 10_000,
    }
    const invalid = expect.objectContaining({ code: 'registration-proof-invalid' })
    await expect(requestRegistration(target, () => signed(Buffer.alloc(32)))).rejects.toEqual(invalid)
    const altered = requestRegistration(target, (exporter) => ({ ...signed(exporter), name: 'host-2' }))
    await expect(altered).rejects.toEqual(invalid)
  })

  it('an expired file; and one that expired by the coordinator’s clock only', async () => {
    const { path } = credentialsFile(site, { nowMs: Date.now() - 5 * dayMs - 1000 })
    expect((await refusal(site, { credentialsPath: path })).code).toBe('credentials-expired')
    expect((await refusal(site, { credentialsPath: path, clock: clockOff(-dayMs / 2) })).code).toBe(
      'credentials-expired',
    )
  })

  it('a vault the coordinator does not have', async () => {
    const { path } = credentialsFile(site)
    const vault = site.vaults.vaults.shift()
    if (vault) site.vaults.vaults.push({ ...vault, vaultId: vaultId.parse('c') })
    expect((await refusal(site, { credentialsPath: path })).code).toBe('registration-vault-unknown')
  })

  it('a vault whose certificate was taken away since', async () => {
    const { path } = credentialsFile(site)
    site.vaults.replaceVault(idA, { certificatePem: null })
    expect((await refusal(site, { credentialsPath: path })).code).toBe('registration-certificate-refused')
  })

  it('clocks that differ by hours, in either direction', async () => {
    for (const hours of [-2, 2]) {
      const { path } = credentialsFile(site, { nowMs: Date.now() - 3 * 3_600_000 })
      const error = await refusal(site, { credentialsPath: path, clock: clockOff(hours * 3_600_000) })
      expect(error.code).toBe('clock-skew')
      expect(Math.round(Number(error.details['skewMs']) / 3_600_000)).toBe(hours)
    }
  })

  it('no coordinator there', async () => {
    const port = await unusedPort()
    const { path } = credentialsFile(site, { addresses: [{ host: '127.0.0.1', port }] })
    const error = await refusal(site, { credentialsPath: path })
    expect(error).toMatchObject({ code: 'coordinator-unreachable', retryable: true })
    expect(error.message).toContain(`127.0.0.1:${port}: ECONNREFUSED`)
  })

  it('a coordinator that accepts and says nothing', async () => {
    const mute = createTcpServer(() => {})
    const port = await listen(mute)
    const { path } = credentialsFile(site, { addresses: [{ host: '127.0.0.1', port }] })
    const error = await refusal(site, { credentialsPath: path, timeoutMs: 100 })
    expect(error).toMatchObject({
      code: 'coordinator-unreachable',
      message: expect.stringContaining('no answer in time'),
    })
    mute.close()
  })

  it('something else that answers: another certificate, or no TLS', async () => {
    const other = await makeTlsIdentity('impostor')
    const { path } = credentialsFile(site, { pin: other.certificatePem })
    expect((await refusal(site, { credentialsPath: path })).code).toBe('coordinator-certificate-mismatch')
    const http = createTcpServer((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'))
    const port = await listen(http)
    const plain = credentialsFile(site, { addresses: [{ host: '127.0.0.1', port }] })
    expect((await refusal(site, { credentialsPath: plain.path })).code).toBe(
      'coordinator-certificate-mismatch',
    )
    http.close()
  })

  it('an answer that is none', async () => {
    const odd = createHttpsServer(
      { key: site.tls.keyPem, cert: site.tls.certificatePem },
      (_request, response) => response.end('hello'),
    )
    const port = await listen(odd)
    const { path } = credentialsFile(site, { addresses: [{ host: '127.0.0.1', port }] })
    expect((await refusal(site, { credentialsPath: path })).code).toBe('registration-reply-invalid')
    odd.close()
    odd.closeAllConnections()
  })

  it('a coordinator that cannot read its vaults: it tells nothing of its insides, and logs all', async () => {
    site.vaults.failure = new Error('cannot open /var/lib/secret-place/coordinator.db')
    const error = await refusal(site)
    expect(error.code).toBe('internal')
    expect(error.text).not.toContain('secret-place')
    expect(site.logLines.join('\n')).toContain('secret-place')
  })
})
