import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { errorDocument } from '#shared/errors/hotsite-error.ts'
import { identityPath, loadIdentity } from '#shared/trust/identity-store.ts'
import {
  clockOff,
  credentialsFile,
  pem,
  raw,
  refusal,
  register,
  restartListener,
  startListener,
  useRegistrationSite,
} from './testing/registration-site.ts'

const site = useRegistrationSite()

describe('limits', () => {
  it('failures from one address are limited, and told as such', async () => {
    await restartListener(site, { limits: { maxFailures: 2 } })
    const attempt = () => refusal(site, { clock: clockOff(3_600_000) })
    expect((await attempt()).code).toBe('clock-skew')
    expect((await attempt()).code).toBe('clock-skew')
    expect((await attempt()).code).toBe('registration-rate-limited')
    expect(await refusal(site)).toMatchObject({ code: 'registration-rate-limited', retryable: true })
  })

  it('a request that is too large is refused, one that never ends is cut off', async () => {
    await restartListener(site, { limits: { stepTimeoutMs: 1500 } })
    const large = await raw(
      site,
      `POST /register HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n${'x'.repeat(20_000)}`,
    )
    expect(large).toContain('larger than 16384 bytes')
    const slow = await raw(site, 'POST /register HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{')
    expect(slow).toContain('408')
    expect(await raw(site, 'GET / HTTP/1.1\r\nhost: x\r\n\r\n')).toContain('404')
    expect(await raw(site, 'POST /register HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}')).toContain(
      'request-invalid',
    )
  })

  it('a port that is taken is an error with the address', async () => {
    await expect(startListener(site, { port: site.listener.address.port })).rejects.toMatchObject({
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
  for (const vault of site.vaults.vaults) noteSecret(vault.key.secretKey)
  const { path, token } = credentialsFile(site)
  secrets.push(token, token.slice(-20))
  secrets.push(
    ...[site.pairA, site.pairB, site.stranger].map((pair) => String(pair.privateKeyPem.split('\n')[1])),
  )
  const identity = await register(site, { credentialsPath: path })
  noteSecret(identity.keys.secretKey)
  texts.push((await refusal(site, { credentialsPath: path })).text)
  texts.push((await refusal(site, { credentialsPath: path, dataDir: join(site.dir, 'b') })).text)
  texts.push(
    (
      await refusal(site, {
        credentialsPath: path,
        dataDir: join(site.dir, 'c'),
        keyAndCertificate: pem(site.pairB),
      })
    ).text,
  )
  site.vaults.failure = new Error('disk gone')
  texts.push(
    (await refusal(site, { credentialsPath: path, dataDir: join(site.dir, 'd'), name: 'other' })).text,
  )
  writeFileSync(path, `{"format": "hotsite-credentials", "version": 1, "token": "${token}"}`)
  texts.push((await refusal(site, { credentialsPath: path, dataDir: join(site.dir, 'e') })).text)
  writeFileSync(
    identityPath(site.dataDir),
    `{"secretKey": "${Buffer.from(identity.keys.secretKey).toString('base64')}" oops`,
  )
  texts.push(errorDocument(catchError(() => loadIdentity(site.dataDir))).message)
  expect(site.logLines.length).toBeGreaterThanOrEqual(5)
  for (const secret of secrets) {
    expect(secret.length).toBeGreaterThanOrEqual(20)
    for (const text of [...texts, ...site.logLines]) expect(text).not.toContain(secret)
  }
})

function catchError(run: () => unknown): unknown {
  try {
    return run()
  } catch (error) {
    return error
  }
}
