import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { stringify } from 'yaml'
import { testVault } from '#shared/channel/testing.ts'
import { lockDataDir } from '#shared/data-dir.ts'
import { serverId } from '#shared/ids.ts'
import { saveIdentity } from '#shared/trust/identity-store.ts'
import { loadAgentConfig } from './config.ts'
import { runAgent } from './main.ts'

let dir: string
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'hotsite-agent-main-'))
})
afterAll(() => rmSync(dir, { recursive: true, force: true }))

function writeConfig(changes: object = {}): string {
  const path = join(dir, 'agent.yaml')
  const config = {
    name: 'east',
    dataDir: 'data',
    hypervisor: { driver: 'folder', root: 'fabric', host: 'east' },
    listen: { host: '127.0.0.1', port: 0 },
    log: { level: 'error' },
    ...changes,
  }
  writeFileSync(path, stringify(config))
  return path
}

test('paths are relative to the file, and what is left out has a default', () => {
  expect(loadAgentConfig(writeConfig())).toMatchObject({
    dataDir: join(dir, 'data'),
    replicaDir: join(dir, 'data'),
    hypervisor: { root: join(dir, 'fabric'), freezeLimitMs: expect.any(Number) },
  })
})

test.each([
  ['an unknown key', { lisen: {} }, /lisen/],
  ['a port that is none', { listen: { host: 'h', port: 70_000 } }, /listen\.port/],
  ['an unknown driver', { hypervisor: { driver: 'xen' } }, /hypervisor/],
  ['a buffer too small to work', { bufferMaxBytes: 1 }, /bufferMaxBytes/],
])('%s in the configuration is named', (_case, changes, message) => {
  const path = writeConfig(changes)
  expect(() => loadAgentConfig(path)).toThrow(message)
})

test('without an identity the agent does not start; with one it runs until the signal; two do not share a data folder', async () => {
  const path = writeConfig()
  const stop = new AbortController()
  await expect(runAgent(path, stop.signal)).rejects.toMatchObject({ code: 'not-registered' })
  const vault = testVault()
  const id = serverId.parse('agent-east')
  lockDataDir(join(dir, 'data'))[Symbol.dispose]()
  saveIdentity(join(dir, 'data'), {
    vaultId: vault.vaultId,
    vaultName: 'v',
    serverId: id,
    kind: 'agent',
    name: 'east',
    ...vault.server(id, 'agent'),
    vaultPublicKey: vault.keys.publicKey,
    generation: 1,
    coordinatorCertificatePem: '',
    channelAddresses: [{ host: '127.0.0.1', port: 1 }],
    registeredAtMs: 1,
  })
  {
    using _other = lockDataDir(join(dir, 'data'))
    await expect(runAgent(path, stop.signal)).rejects.toMatchObject({ code: 'data-dir-in-use' })
  }
  const running = runAgent(path, stop.signal)
  stop.abort()
  await running
  // The lock went with it.
  lockDataDir(join(dir, 'data'))[Symbol.dispose]()
})
