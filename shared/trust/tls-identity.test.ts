import { X509Certificate } from 'node:crypto'
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { loadOrMakeTlsIdentity, makeTlsIdentity } from './tls-identity.ts'

const root = mkdtempSync(join(tmpdir(), 'hotsite-tls-'))
afterAll(() => rmSync(root, { recursive: true }))

test('made once, then loaded; the key is for its owner alone', async () => {
  const dir = join(root, 'identity')
  const made = await loadOrMakeTlsIdentity(dir, 'host-1')
  expect(await loadOrMakeTlsIdentity(dir, 'another name')).toEqual(made)
  expect(statSync(join(dir, 'tls-key.pem')).mode & 0o777).toBe(0o600)
  expect(statSync(dir).mode & 0o777).toBe(0o700)
  expect(new X509Certificate(made.certificatePem).subject).toBe('CN=host-1')
})

test('a certificate without its key is an error, not a new identity that nobody pinned', async () => {
  const dir = join(root, 'broken')
  await loadOrMakeTlsIdentity(dir)
  rmSync(join(dir, 'tls-key.pem'))
  await expect(loadOrMakeTlsIdentity(dir)).rejects.toMatchObject({ code: 'tls-identity-incomplete' })
})

test('a name that is no X.500 text is made into one', async () => {
  const { certificatePem } = await makeTlsIdentity('a,b=ü/*')
  expect(new X509Certificate(certificatePem).subject).toBe('CN=a_b____')
})
