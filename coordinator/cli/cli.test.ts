import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { startAdminSocket } from '#coordinator/admin/socket.ts'
import { MemoryService } from '#coordinator/admin/testing/memory-service.ts'
import {
  cloudView,
  errorView,
  eventView,
  jobView,
  pointView,
  serverView,
  statusView,
  vaultView,
  vmView,
} from '#coordinator/admin/views.ts'
import { silentLog } from '#shared/log.ts'
import { runHotsite } from './testing/run-cli.ts'
import { runInProcess } from './testing/run-in-process.ts'

let folder: string
let socketPath: string
let service: MemoryService
let socket: AsyncDisposable

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'hotsite-cli-'))
  socketPath = join(folder, 'admin', 'a.sock')
  service = new MemoryService()
  socket = await startAdminSocket({ service, socketPath, log: silentLog, version: '0.1.0' })
})
afterEach(async () => {
  await socket[Symbol.asyncDispose]()
  rmSync(folder, { recursive: true, force: true })
})

const hotsite = (...words: string[]) => runHotsite(words, { socketPath, cwd: folder })
const quick = (...words: string[]) => runInProcess(words, { socketPath })

describe('exit codes', () => {
  it('0: done, with what to do next', async () => {
    service.jobs.ending = 'wait'
    const test = await hotsite('failover', 'test', 'shop')
    expect([test.exitCode, test.out.includes('cleanup-test shop')]).toEqual([0, true])
  })

  it.each([
    [['vm', 'protct', 'shop'], 'unknown command'],
    [['vm', 'protect'], 'missing required argument'],
    [['vm', 'protect', 'shop', '--copy-frequency', '31s'], '30s, 5m or 15m'],
    [['vm', 'set-policy', 'shop'], 'nothing to change'],
    [['failover', 'change-point', 'shop', '--point', 'yesterday'], 'point'],
    [['failover', 'unplanned', 'shop'], '--yes'],
    [['vm', 'unprotect', 'shop'], '--yes'],
    [['vault', 'regenerate-key', 'main'], '--yes'],
    [['server', 'remove', 'host-a'], '--yes'],
    [['cloud', 'pair', 'gold', 'gold'], 'itself'],
    [['vault'], 'Commands:'],
    [[], 'Commands:'],
  ])('2: %j is not valid, and nothing is done', async (words, named) => {
    const run = await quick(...words)
    expect([run.exitCode, run.err.includes(named), run.out]).toEqual([2, true, ''])
    expect(service.calls.filter(({ name }) => name !== 'pairClouds')).toEqual([])
  })

  it('2: of the real command, too', async () => {
    expect((await hotsite('vm', 'protect')).exitCode).toBe(2)
  })

  it('3: not found, with cause and action', async () => {
    const run = await hotsite('vm', 'show', 'none')
    expect(run.exitCode).toBe(3)
    expect(run.err).toMatch(
      /Error: there is no VM none \[not-found\]\nLikely cause: .+\nWhat to do: {3}.+\n$/,
    )
  })

  it('4: refused while busy', async () => {
    service.vms.set('shop', { ...(await service.showVm('shop')), currentJob: 'job-9' })
    const run = await hotsite('vm', 'resync', 'shop', '--json')
    expect(run.exitCode).toBe(4)
    expect(z.object({ error: errorView }).parse(JSON.parse(run.err)).error.code).toBe('vm-busy')
  })

  it('5: no coordinator; the message says what to start', async () => {
    const away = await runHotsite(['status', '--socket', join(folder, 'none.sock')])
    expect(away.exitCode).toBe(5)
    expect(away.err).toContain('hotsite coordinator --config')
  })

  it('6: the job failed; its error is shown', async () => {
    service.jobs.ending = 'fail'
    const run = await hotsite('failover', 'planned', 'shop')
    expect(run.exitCode).toBe(6)
    expect(run.out).toContain('✗ Start')
    expect(run.out).toContain('the target disk is full [disk-full]')
    const json = await quick('job', 'watch', 'job-1', '--json')
    expect([json.exitCode, jobView.parse(JSON.parse(json.out)).state]).toEqual([6, 'failed'])
  })
})

describe('--json is the view', () => {
  it.each([
    [['status'], statusView],
    [['vault', 'list'], z.array(vaultView)],
    [['vault', 'show', 'main'], vaultView],
    [['server', 'list'], z.array(serverView)],
    [['server', 'show', 'host-a'], serverView],
    [['cloud', 'list'], z.array(cloudView)],
    [['cloud', 'pair', 'vmm-a/gold', 'vmm-b/silver', '--network', 'a=b'], cloudView],
    [['vm', 'list'], z.array(vmView)],
    [['vm', 'show', 'shop'], vmView],
    [['vm', 'protect', 'shop'], jobView],
    [['vm', 'resume', 'shop', '--no-wait'], jobView],
    [['point', 'list', 'shop'], z.array(pointView)],
    [['failover', 'commit', 'shop'], jobView],
    [['job', 'list'], z.array(jobView)],
    [['event', 'list', '--limit', '1'], z.array(eventView)],
  ])('%j', async (words, schema: z.ZodType) => {
    const run = await quick(...words, '--json')
    expect([run.exitCode, run.err]).toEqual([0, ''])
    schema.parse(JSON.parse(run.out))
  })
})

describe('jobs', () => {
  it('are followed step by step, in plain lines where there is no terminal', async () => {
    const run = await hotsite('failover', 'planned', 'shop')
    expect(run.out.split('\n')).toEqual([
      'planned failover of shop (job-1)',
      '  ✓ Shut down  1.5 s',
      '  ✓ Send the last changes  1.5 s',
      '  ✓ Start  1.5 s',
      expect.stringMatching(/^succeeded {2}planned failover of shop \(job-1\) {2}after /),
      'Next: check the VM, then hotsite failover commit shop',
      '',
    ])
  })

  it('--no-wait prints the job as it was started', async () => {
    service.jobs.ending = 'stay'
    const run = await hotsite('failover', 'test', 'shop', '--no-wait', '--json')
    const job = jobView.parse(JSON.parse(run.out))
    expect([run.exitCode, job.state]).toEqual([0, 'running'])
    const cancelled = await quick('job', 'cancel', job.jobId, '--json')
    expect(cancelled.exitCode).toBe(0)
    expect(jobView.parse(JSON.parse(cancelled.out)).state).toBe('cancelled')
  })

  it('a coordinator that is restarted meanwhile is waited for', async () => {
    service.jobs.ending = 'stay'
    const started = await service.plannedFailover('shop')
    const watching = Promise.withResolvers<void>()
    const watch = service.watchJob.bind(service)
    service.watchJob = (job, signal) => {
      watching.resolve()
      return watch(job, signal)
    }
    const run = hotsite('job', 'watch', started.jobId)
    await watching.promise
    await socket[Symbol.asyncDispose]()
    service.jobs.cancel(started.jobId)
    socket = await startAdminSocket({ service, socketPath, log: silentLog, version: '0.1.0' })
    expect(await run).toMatchObject({
      exitCode: 6,
      out: expect.stringContaining('cancelled  planned failover'),
    })
  })
})

describe('options arrive as they were meant', () => {
  it('of a policy: only what was given', async () => {
    await quick(
      'vm',
      'set-policy',
      'shop',
      '--copy-frequency',
      '5m',
      '--throttle',
      '10MiB',
      '--no-compression',
    )
    const changed = {
      copyFrequencySeconds: 300,
      compression: false,
      throttleBytesPerSecond: 10 * 1024 * 1024,
    }
    expect(service.calls.at(-1)).toEqual({ name: 'setPolicy', args: ['shop', changed] })
    await quick('vm', 'protect', 'shop')
    expect(service.calls.at(-1)).toEqual({ name: 'protect', args: ['shop', {}] })
  })

  it('of a failover', async () => {
    await quick('failover', 'unplanned', 'shop', '--point', '1.6', '--yes')
    const options = { point: '1.6', shutDownSource: false, verify: true }
    expect(service.calls.at(-1)).toEqual({ name: 'unplannedFailover', args: ['shop', options] })
    await quick('failover', 'cleanup-test', 'shop', '--outcome', 'failed', '--notes', 'no login')
    expect(service.calls.at(-1)?.args).toEqual(['shop', { outcome: 'failed', notes: 'no login' }])
  })

  it('a point is pinned and unpinned', async () => {
    await quick('point', 'pin', 'shop', '1.6')
    expect(service.points.get('1.6')?.pinned).toBe(true)
    await quick('point', 'unpin', 'shop', '1.6')
    expect(service.points.get('1.6')?.pinned).toBe(false)
  })
})

describe('vault', () => {
  const create = ['vault', 'create', '--region', 'eu', '--subscription', 's', '--name']

  it('a generated key stays here, in files of mode 0600; only the certificate is sent', async () => {
    const run = await quick(...create, 'second', '--generate-certificate', join(folder, 'keys'))
    expect([run.exitCode, run.err]).toEqual([0, ''])
    const names = readdirSync(join(folder, 'keys')).sort()
    expect(names).toEqual(['second.cer', 'second.pem', 'second.pfx'])
    for (const name of names) expect(statSync(join(folder, 'keys', name)).mode & 0o777).toBe(0o600)
    const sent = JSON.stringify(service.calls.at(-1))
    expect(sent).toContain('BEGIN CERTIFICATE')
    expect(sent).not.toContain('PRIVATE')
    expect(readFileSync(join(folder, 'keys', 'second.pem'), 'utf8')).toContain('PRIVATE KEY')
    const again = await quick(
      'vault',
      'set-certificate',
      'second',
      '--generate-certificate',
      join(folder, 'keys'),
    )
    expect([again.exitCode, again.err.includes('[file-exists]')]).toEqual([4, true])
  })

  it('the files of a refused request are removed', async () => {
    const run = await quick(...create, 'main', '--generate-certificate', join(folder, 'keys'))
    expect(run.exitCode).toBe(4)
    expect(readdirSync(join(folder, 'keys'))).toEqual([])
  })

  it('of a .pem with its key, only the certificate is sent', async () => {
    const certificate = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----'
    const pem = `-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n${certificate}\n`
    writeFileSync(join(folder, 'v.pem'), pem)
    expect(
      (await quick('vault', 'set-certificate', 'main', '--certificate', join(folder, 'v.pem'))).exitCode,
    ).toBe(0)
    expect(service.calls.at(-1)?.args).toEqual(['main', `${certificate}\n`])
  })

  it('a file that is no certificate is refused here, and nothing is sent', async () => {
    writeFileSync(join(folder, 'c.json'), '{}')
    const run = await quick('vault', 'set-certificate', 'main', '--certificate', join(folder, 'c.json'))
    expect([run.exitCode, run.err.includes('holds no certificate'), service.calls]).toEqual([2, true, []])
  })

  it('the credentials are written with mode 0600 and shown nowhere', async () => {
    const run = await quick('vault', 'credentials', 'main', '--out', join(folder, 'c.json'), '--json')
    expect(statSync(join(folder, 'c.json')).mode & 0o777).toBe(0o600)
    expect(readFileSync(join(folder, 'c.json'), 'utf8')).toBe('{"token":"t"}')
    expect(run.out + run.err).not.toContain('token')
    expect(JSON.parse(run.out)).toEqual({
      file: expect.stringContaining('c.json'),
      expiresAtMs: expect.any(Number),
    })
  })
})

it('register on a server: a file that is not a credentials file is refused and nothing is written', async () => {
  writeFileSync(join(folder, 'agent.yaml'), 'name: host-a\ndataDir: data\nhypervisor: { host: host-a }\n')
  writeFileSync(join(folder, 'c.json'), '{}')
  const words = [
    'register',
    '--kind',
    'agent',
    '--config',
    join(folder, 'agent.yaml'),
    '--credentials',
    join(folder, 'c.json'),
  ]
  const run = await quick(...words, '--certificate', 'none.pfx')
  expect(run.exitCode).toBe(2)
  expect(run.err).toMatch(/\[(credentials|key-pair)-/)
  expect(existsSync(join(folder, 'data'))).toBe(false)
})

describe('on a terminal', () => {
  const asked = (typed: string, ...words: string[]) => runInProcess(words, { socketPath, columns: 80, typed })

  it('what cannot be undone is asked for: no does nothing, yes does it', async () => {
    const no = await asked('n', 'server', 'remove', 'host-a')
    expect([no.exitCode, service.servers.size]).toEqual([4, 1])
    expect(no.err).toContain('Go on? [y/N]')
    const yes = await asked('y', 'server', 'remove', 'host-a')
    expect([yes.exitCode, service.servers.size]).toEqual([0, 0])
  })

  it('NO_COLOR is honoured', async () => {
    const env = { NO_COLOR: '1' }
    const run = await runInProcess(['status'], { socketPath, columns: 80, env })
    // biome-ignore lint/suspicious/noControlCharactersInRegex: colour sequences begin with one
    expect(run.out).not.toMatch(/\u001b\[\d+m/)
  })

  it.each([80, 100, 120])('no table is wider than %d columns, whatever the names', async (columns) => {
    const long = 'a-very-long-name-'.repeat(6)
    const vm = await service.showVm('shop')
    service.vms.set('shop', { ...vm, name: long, stateText: long, host: long, cloud: long })
    service.servers.set('x', { ...(await service.showServer('host-a')), name: long, host: long })
    service.clouds = service.clouds.map((cloud) => ({ ...cloud, cloud: long }))
    service.jobs.start('unplannedFailover', long, [long])
    const lists = [
      ['status'],
      ['vm', 'list'],
      ['server', 'list'],
      ['cloud', 'list'],
      ['point', 'list', 'shop'],
      ['event', 'list'],
      ['job', 'list'],
    ]
    for (const words of lists) {
      const run = await runInProcess(words, { socketPath, columns, env: { NO_COLOR: '1' } })
      for (const line of run.out.split('\n'))
        expect([words, line, [...line].length <= columns]).toEqual([words, line, true])
    }
  })
})

it('a pipe gets no colours, and names cannot steer the terminal', async () => {
  service.vms.set('shop', { ...(await service.showVm('shop')), name: 'shop\u001b[2Jx' })
  const run = await quick('status')
  expect(run.out).toContain('SAFE')
  expect(run.out).not.toContain('\u001b')
})
