/** What bad input gets: an error that says what happened, why and what to do; the exit code of its kind; nothing changed. */
import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { vaultKeyPath } from '#coordinator/registration/vault-key.ts'
import type { ErrorCode } from '#shared/errors/table.ts'
import { vaultId } from '#shared/ids.ts'
import { hasTool } from '#shared/testing/tools.ts'
import { issueCredentials } from '#shared/trust/credentials-file.ts'
import { keysFromSecret } from '#shared/trust/keys.ts'
import {
  dayMs,
  ExtendedKeyUsage,
  KeyUsageFlags,
  makeCertificate,
  rsa,
} from '#shared/trust/testing/offending-certificates.ts'
import {
  type BadLuckLab,
  badLuckLab,
  changeConfig,
  configPath,
  connected,
  expectRefused,
  expectReplicationGoesOn,
  folderOf,
  guestName,
  hotsite,
  pairing,
  pointsOf,
  policy,
  protectGuest,
  serversOf,
  stopDaemon,
  until,
  vmOf,
} from './bad-luck-lab.ts'

let site: BadLuckLab
beforeAll(async () => {
  site = await badLuckLab()
})
afterAll(async () => {
  await site[Symbol.asyncDispose]()
})

const file = (name: string) => join(site.dir, name)
const vaultFile = (suffix: string) => {
  const { vaultDir } = site.lab.layout
  return join(vaultDir, readdirSync(vaultDir).find((name) => name.endsWith(suffix)) ?? '')
}

describe('credentials file', () => {
  const registerWith = (credentials: string) => [
    'register',
    '--credentials',
    credentials,
    '--certificate',
    vaultFile('.pem'),
    '--kind',
    'agent',
    '--data-dir',
    file('nobody'),
    '--name',
    'nobody',
  ]
  const document = () => JSON.parse(readFileSync(site.lab.layout.credentialsFile, 'utf8'))
  const write = (name: string, text: string) => {
    writeFileSync(file(name), text)
    return file(name)
  }
  /** Signed by the vault, but of last week. */
  const expired = () => {
    const { registrationUrls, channelAddresses, ...given } = document()
    const key = JSON.parse(
      readFileSync(
        vaultKeyPath(join(folderOf(site.lab, 'coordinator'), 'data'), vaultId.parse(given.vaultId)),
        'utf8',
      ),
    )
    const { publicKey, secretKey } = keysFromSecret(Buffer.from(key.secretKey, 'base64'))
    return issueCredentials({
      signer: { vaultId: vaultId.parse(given.vaultId), generation: given.generation, publicKey, secretKey },
      vaultName: given.vaultName,
      registrationUrls,
      channelAddresses,
      coordinatorCertificatePem: given.coordinatorCertificatePem,
      vaultCertificateThumbprint: given.vaultCertificateThumbprint,
      token: given.token,
      issuedAtMs: given.issuedAtMs - 9 * dayMs,
      expiresAtMs: given.expiresAtMs - 9 * dayMs,
    })
  }

  it.each<[string, () => string, ErrorCode, RegExp]>([
    [
      'missing',
      () => file('no-such-file'),
      'credentials-not-a-credentials-file',
      /cannot read .*no-such-file/,
    ],
    [
      'not JSON',
      () => write('text', 'hello'),
      'credentials-not-a-credentials-file',
      /text is not a registration/,
    ],
    [
      'another file of Hotsite',
      () => site.lab.layout.labFile,
      'credentials-not-a-credentials-file',
      /lab\.json is not a registration/,
    ],
    [
      'of a later version',
      () => write('later', JSON.stringify({ ...document(), version: 9 })),
      'credentials-version-unknown',
      /version 9/,
    ],
    [
      'altered',
      () => write('altered', JSON.stringify({ ...document(), vaultName: 'other' })),
      'credentials-altered',
      /signature of .*altered/,
    ],
    [
      'cut off',
      () => write('cut', JSON.stringify({ ...document(), token: undefined })),
      'credentials-altered',
      /token/,
    ],
    ['expired', () => write('expired', expired()), 'credentials-expired', /expired at/],
  ])('%s', async (_what, path, code, says) => {
    await expectRefused(site.lab, registerWith(path()), { code, exitCode: 2, says })
    expect(existsSync(file('nobody/identity.json'))).toBe(false)
    expect(await serversOf(site.lab)).toHaveLength(4)
  })

  it('a token nobody issued, in a file with a good signature', async () => {
    const content = JSON.parse(expired())
    const key = JSON.parse(
      readFileSync(
        vaultKeyPath(join(folderOf(site.lab, 'coordinator'), 'data'), vaultId.parse(content.vaultId)),
        'utf8',
      ),
    )
    const { publicKey, secretKey } = keysFromSecret(Buffer.from(key.secretKey, 'base64'))
    const {
      format: _f,
      version: _v,
      vaultId: id,
      vaultPublicKey: _k,
      generation,
      signature: _s,
      ...given
    } = content
    const forged = issueCredentials({
      ...given,
      signer: { vaultId: vaultId.parse(id), generation, publicKey, secretKey },
      token: 'hst1.e30.AAAA',
      expiresAtMs: Date.now() + dayMs,
    })
    await expectRefused(site.lab, registerWith(write('forged', forged)), {
      code: 'registration-token-invalid',
      exitCode: 4,
      says: /token/,
    })
    expect(await serversOf(site.lab)).toHaveLength(4)
  })

  it('the key of another vault certificate', async () => {
    const stranger = await makeCertificate({
      notBefore: new Date(Date.now() - dayMs),
      notAfter: new Date(Date.now() + dayMs),
    })
    const pem = write('stranger.pem', `${stranger.privateKeyPem}${stranger.certificatePem}`)
    const args = registerWith(site.lab.layout.credentialsFile).map((arg) =>
      arg === vaultFile('.pem') ? pem : arg,
    )
    const said = await hotsite(site.lab, ...args)
    expect(said.err).toMatch(/Likely cause: .*\nWhat to do: /)
    expect(said.exitCode).not.toBe(0)
    expect(await serversOf(site.lab)).toHaveLength(4)
  })
})

describe('vault certificate', () => {
  const now = Date.now()
  const good = { notBefore: new Date(now - dayMs), notAfter: new Date(now + 300 * dayMs) }
  const openssl = (...args: string[]) => {
    const { status, stderr } = spawnSync('openssl', args, { encoding: 'utf8' })
    expect(status, stderr).toBe(0)
  }
  const made = async (options: Parameters<typeof makeCertificate>[0]) =>
    (await makeCertificate(options)).certificatePem
  const versionOne = () => {
    const [key, csr, cer] = [file('v1.key'), file('v1.csr'), file('v1.cer')]
    openssl('req', '-new', '-newkey', 'rsa:2048', '-nodes', '-keyout', key, '-subj', '/CN=v1', '-out', csr)
    openssl('x509', '-req', '-in', csr, '-signkey', key, '-days', '3', '-out', cer)
    return readFileSync(cer, 'utf8')
  }
  const cases: readonly [string, () => string | Promise<string>, ErrorCode, RegExp][] = [
    ['no certificate', () => 'hello', 'vault-certificate-unreadable', /certificate/],
    ['RSA 1024', () => made({ ...good, algorithm: rsa(1024) }), 'vault-certificate-key-weak', /1024/],
    [
      'Ed25519',
      () => made({ ...good, algorithm: { name: 'Ed25519' } }),
      'vault-certificate-key-type',
      /ed25519/i,
    ],
    [
      'for servers only',
      () => made({ ...good, extendedKeyUsage: [ExtendedKeyUsage.serverAuth] }),
      'vault-certificate-no-client-auth',
      /Client Authentication|clientAuth/i,
    ],
    [
      'not for signing',
      () => made({ ...good, keyUsage: KeyUsageFlags.keyEncipherment }),
      'vault-certificate-key-usage',
      /digitalSignature/i,
    ],
    [
      'from tomorrow',
      () => made({ ...good, notBefore: new Date(now + dayMs) }),
      'vault-certificate-not-yet-valid',
      /valid/,
    ],
    [
      'until yesterday',
      () => made({ notBefore: new Date(now - 9 * dayMs), notAfter: new Date(now - dayMs) }),
      'vault-certificate-expired',
      /expired|until|valid/,
    ],
    [
      'for four years',
      () => made({ ...good, notAfter: new Date(now + 1460 * dayMs) }),
      'vault-certificate-validity-too-long',
      /valid/,
    ],
    ...(hasTool('openssl')
      ? [['X.509 version 1', versionOne, 'vault-certificate-not-v3', /version 1/] as const].map(
          ([what, make, code, says]): [string, () => string, ErrorCode, RegExp] => [what, make, code, says],
        )
      : []),
  ]
  it.each(cases)('%s', async (_what, make, code, says) => {
    const path = file('offending.cer')
    writeFileSync(path, await make())
    const args = ['vault', 'create', '--name', 'second', '--region', 'r', '--subscription', 's']
    await expectRefused(site.lab, [...args, '--certificate', path], { code, exitCode: 2, says })
    expect(await site.lab.cli('vault', 'list')).toHaveLength(1)
  })
})

describe('registration', () => {
  it('a second one of the same server keeps the first', async () => {
    const { lab } = site
    const identity = join(folderOf(lab, 'agent-host-a1'), 'data', 'identity.json')
    const before = readFileSync(identity)
    const again = [
      'register',
      '--credentials',
      lab.layout.credentialsFile,
      '--certificate',
      vaultFile('.pem'),
      '--kind',
      'agent',
      '--config',
      configPath(lab, 'agent-host-a1'),
    ]
    await expectRefused(lab, again, { code: 'data-dir-in-use', exitCode: 4, says: /host-a1/ })
    await stopDaemon(lab, 'agent-host-a1')
    await expectRefused(lab, again, { code: 'already-registered', exitCode: 4, says: /host-a1/ })
    expect(readFileSync(identity)).toEqual(before)
    lab.restart('agent-host-a1')
    await until('it is back', () => connected(lab, 'host-a1'))
  })

  it('a name that is taken', async () => {
    await expectRefused(
      site.lab,
      [
        'register',
        '--credentials',
        site.lab.layout.credentialsFile,
        '--certificate',
        vaultFile('.pem'),
        '--kind',
        'agent',
        '--data-dir',
        file('other'),
        '--name',
        'host-a1',
      ],
      { code: 'server-name-taken', exitCode: 4, says: /host-a1/ },
    )
    expect(await serversOf(site.lab)).toHaveLength(4)
  })
})

describe('configuration', () => {
  it.each(['coordinator', 'provider-site-a', 'agent-host-a1'])('%s with an unknown key', async (daemon) => {
    const folder = file(`config-${daemon}`)
    mkdirSync(folder)
    const path = join(folder, 'config.yaml')
    copyFileSync(configPath(site.lab, daemon), path)
    changeConfig(path, { dataDirr: 'typo' })
    await expectRefused(site.lab, [daemon.split('-')[0] ?? '', '--config', path], {
      code: 'config-invalid',
      exitCode: 2,
      says: /dataDirr/,
    })
    expect(readdirSync(folder)).toEqual(['config.yaml'])
  })
})

describe('pairing, protection and failover', () => {
  const refused = (args: readonly string[], code: ErrorCode, exitCode: number, says: RegExp) =>
    expectRefused(site.lab, args, { code, exitCode, says })

  it('what is refused before anything is paired', async () => {
    await refused(['cloud', 'pair', 'vmm-a/gold-a', 'vmm-a/gold-a'], 'cloud-pair-itself', 2, /gold-a/)
    await refused(['cloud', 'pair', 'vmm-a/gold-a', 'vmm-b/gold'], 'cloud-unknown', 3, /vmm-b\/gold/)
    await refused(
      ['cloud', 'pair', 'vmm-a/gold-a', 'vmm-b/gold-b', '--network', 'x=prod-b'],
      'network-unknown',
      3,
      /\bx\b/,
    )
    await refused(['vm', 'protect', guestName], 'cloud-not-paired', 4, /gold-a/)
    await refused(['vm', 'protect', 'app-2'], 'vm-unknown', 3, /app-2/)
    await refused(['failover', 'planned', guestName], 'vm-not-protected', 4, /app-1/)
    expect((await vmOf(site.lab)).state).toBe('unprotected')
  })

  it('what is refused once the VM is protected', async () => {
    await protectGuest(site.lab)
    await refused(['cloud', 'pair', ...pairing, ...policy], 'cloud-already-paired', 4, /gold-a/)
    await refused(['cloud', 'pair', 'vmm-b/gold-b', 'vmm-a/gold-a'], 'cloud-already-paired', 4, /gold/)
    await refused(['vm', 'protect', guestName], 'vm-already-protected', 4, /app-1/)
    await refused(['cloud', 'unpair', 'vmm-a/gold-a'], 'cloud-in-use', 4, /app-1/)
    await refused(['failover', 'test', guestName, '--point', '7.7777'], 'point-unknown', 3, /7\.7777/)
    await refused(
      ['failover', 'unplanned', guestName, '--point', '7.7777', '--yes'],
      'point-unknown',
      3,
      /7\.7777/,
    )
    await refused(['failover', 'commit', guestName], 'operation-not-allowed', 4, /protected/)
    expect((await vmOf(site.lab)).state).toBe('protected')
    await expectReplicationGoesOn(site.lab)
  })

  it('a failover while it resynchronizes', async () => {
    const [newest] = await pointsOf(site.lab)
    await site.lab.kill('agent-host-b1')
    await site.lab.cli('vm', 'resync', guestName, '--no-wait')
    await refused(['failover', 'planned', guestName], 'operation-not-allowed', 4, /resynchroniz/)
    site.lab.restart('agent-host-b1')
    await until('it is protected again', async () => (await vmOf(site.lab)).state === 'protected')
    expect((await pointsOf(site.lab)).map(({ name }) => name)).toContain(newest?.name)
    await expectReplicationGoesOn(site.lab)
  })

  it('everything while a job works on the VM', async () => {
    await site.lab.kill('provider-site-b')
    await until('the provider is missed', async () => !(await connected(site.lab, 'vmm-b')))
    await site.lab.cli('failover', 'planned', guestName, '--no-wait')
    for (const args of [
      ['failover', 'unplanned', guestName, '--yes'],
      ['failover', 'test', guestName],
      ['vm', 'pause', guestName],
      ['vm', 'resync', guestName],
      ['vm', 'unprotect', guestName, '--yes'],
    ]) {
      await refused(args, 'vm-busy', 4, /job-/)
    }
    const { currentJob } = await vmOf(site.lab)
    await site.lab.cli('job', 'cancel', currentJob ?? '')
    await until('the job is over', async () => (await vmOf(site.lab)).currentJob === null)
    site.lab.restart('provider-site-b')
    const vm = await vmOf(site.lab)
    expect(vm).toMatchObject({ state: 'protected', power: 'running', epoch: 1 })
    await expectReplicationGoesOn(site.lab)
  })
})
