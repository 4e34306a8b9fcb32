import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { silentLog } from '#shared/log.ts'
import { adminLimits } from './limits.ts'
import { routes } from './routes.ts'
import { startAdminSocket } from './socket.ts'
import { call } from './testing/call.ts'
import { MemoryService } from './testing/memory-service.ts'
import { errorView, jobView, statusView } from './views.ts'

let folder: string
let socketPath: string
let service: MemoryService
const log = silentLog
const version = '1.2.3'

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'hotsite-admin-'))
  socketPath = join(folder, 'admin', 'a.sock')
  service = new MemoryService()
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const start = () => startAdminSocket({ service, socketPath, log, version })
const codeOf = (promise: Promise<unknown>) =>
  promise.then(
    () => 'no error',
    (error: unknown) => (error instanceof HotsiteError ? error.code : String(error)),
  )

describe('the place of the socket', () => {
  it('is made with a folder of mode 0700 and a socket of mode 0600, and the socket goes when it is closed', async () => {
    const socket = await start()
    expect(statSync(join(folder, 'admin')).mode & 0o777).toBe(0o700)
    expect(statSync(socketPath).mode & 0o777).toBe(0o600)
    await socket[Symbol.asyncDispose]()
    expect(existsSync(socketPath)).toBe(false)
  })

  it.each([0o750, 0o705, 0o701, 0o777])(
    'refuses a folder of mode %o and leaves it as it is',
    async (mode) => {
      mkdirSync(join(folder, 'admin'))
      chmodSync(join(folder, 'admin'), mode)
      expect(await codeOf(start())).toBe('admin-socket-exposed')
      expect(statSync(join(folder, 'admin')).mode & 0o777).toBe(mode)
    },
  )

  it('refuses a folder of another user', async () => {
    if (process.getuid?.() === 0) {
      mkdirSync(join(folder, 'admin'), { mode: 0o700 })
      chownSync(join(folder, 'admin'), 65_534, 65_534)
    } else socketPath = '/hotsite.sock'
    expect(await codeOf(start())).toBe('admin-socket-exposed')
  })

  it('refuses a socket that another coordinator answers on, which goes on undisturbed', async () => {
    await using _ = await start()
    expect(await codeOf(start())).toBe('admin-socket-in-use')
    expect((await call(socketPath, 'GET', '/v1/status')).status).toBe(200)
  })

  it('takes the place of a socket whose process was killed', async () => {
    mkdirSync(join(folder, 'admin'), { mode: 0o700 })
    const listening = `require('net').createServer().listen(${JSON.stringify(socketPath)}, () => console.log('up'))`
    const child = spawn(process.execPath, ['-e', listening], { stdio: ['ignore', 'pipe', 'inherit'] })
    await once(child.stdout, 'data')
    child.kill('SIGKILL')
    await once(child, 'exit')
    expect(existsSync(socketPath)).toBe(true)
    await using _ = await start()
    expect((await call(socketPath, 'GET', '/v1/status')).status).toBe(200)
  })

  it('does not remove a file or a link that is not a socket', async () => {
    mkdirSync(join(folder, 'admin'), { mode: 0o700 })
    writeFileSync(join(folder, 'precious'), 'x')
    symlinkSync(join(folder, 'precious'), socketPath)
    expect(await codeOf(start())).toBe('admin-socket-path-unusable')
    expect(existsSync(socketPath)).toBe(true)
  })

  it('refuses a path that does not fit a Unix socket', async () => {
    socketPath = join(folder, 'x'.repeat(adminLimits.maxSocketPathBytes))
    expect(await codeOf(start())).toBe('admin-socket-path-unusable')
  })
})

describe('answers', () => {
  it('of every route that reads: 200 and a document of the schema', async () => {
    service.jobs.start('protect', 'shop', ['one'])
    const given: Record<string, string> = { vault: 'main', server: 'host-a', vm: 'shop', job: 'job-1' }
    await using _ = await start()
    for (const route of Object.values(routes)) {
      if (route.method !== 'GET' || route.reply.kind !== 'json') continue
      const path = route.path.replace(/\{(\w+)\}/g, (_match, name: string) => given[name] ?? '')
      const reply = await call(socketPath, 'GET', path)
      expect([path, reply.status]).toEqual([path, 200])
      route.reply.schema.parse(reply.json())
      expect(reply.headers['hotsite-version']).toBe(version)
    }
  })

  it('202 with the job for what takes time, 201 for what was made, 204 for what is gone', async () => {
    await using _ = await start()
    const job = await call(socketPath, 'POST', '/v1/vms/shop/protect', '{"policy":{"retentionPoints":3}}')
    expect(job.status).toBe(202)
    expect(jobView.parse(job.json()).kind).toBe('protect')
    expect(service.calls.at(-1)).toEqual({
      name: 'protect',
      args: ['shop', { policy: { retentionPoints: 3 } }],
    })
    const vault = { name: 'second', region: 'eu', subscription: 's' }
    expect((await call(socketPath, 'POST', '/v1/vaults', JSON.stringify(vault))).status).toBe(201)
    const gone = await call(socketPath, 'DELETE', '/v1/servers/host-a')
    expect([gone.status, gone.text]).toEqual([204, ''])
  })

  it('a name with a slash arrives whole', async () => {
    await using _ = await start()
    expect((await call(socketPath, 'DELETE', '/v1/pairings/vmm-a%2Fgold')).status).toBe(204)
    expect(service.calls.at(-1)).toEqual({ name: 'unpairCloud', args: ['vmm-a/gold'] })
  })

  it('a job is watched line by line until it has ended', async () => {
    await using _ = await start()
    const { jobId } = await service.plannedFailover('shop')
    const reply = await call(socketPath, 'GET', `/v1/jobs/${jobId}/watch`)
    expect(reply.headers['content-type']).toContain('application/x-ndjson')
    const views = reply.text
      .trim()
      .split('\n')
      .map((line) => jobView.parse(JSON.parse(line)))
    expect(views.length).toBeGreaterThan(2)
    expect(views.at(-1)?.state).toBe('succeeded')
  })

  it('a watcher is let go when the coordinator stops, without waiting for the job', async () => {
    service.jobs.ending = 'stay'
    const socket = await start()
    const { jobId } = await service.plannedFailover('shop')
    const watching = call(socketPath, 'GET', `/v1/jobs/${jobId}/watch`)
    while (service.jobs.get(jobId).steps.at(-1)?.state !== 'running') await new Promise(setImmediate)
    // A round trip: by then the watcher, which came first, is being served.
    await call(socketPath, 'GET', '/v1/status')
    const startedMs = performance.now()
    await socket[Symbol.asyncDispose]()
    const { text } = await watching
    expect(performance.now() - startedMs).toBeLessThan(adminLimits.closeGraceMs)
    expect(text).not.toContain('"error":{')
  })

  it('a watcher that hangs up ends the iteration at the service', async () => {
    service.jobs.ending = 'stay'
    const ended = Promise.withResolvers<void>()
    const watch = service.watchJob.bind(service)
    service.watchJob = (job, signal) => {
      signal.addEventListener('abort', () => ended.resolve())
      return watch(job, signal)
    }
    await using _ = await start()
    const { jobId } = await service.plannedFailover('shop')
    const socket = connect(socketPath)
    socket.write(`GET /v1/jobs/${jobId}/watch HTTP/1.1\r\nhost: hotsite\r\n\r\n`)
    await once(socket, 'data')
    socket.destroy()
    await ended.promise
  })
})

describe('refusals', () => {
  const invalid: [string, string, string | undefined, string][] = []
  for (const route of Object.values(routes)) {
    const path = route.path.replace(/\{\w+\}/g, 'shop')
    invalid.push([route.method, `${path}?surprise=1`, undefined, 'surprise'])
    if (route.method === 'GET') continue
    invalid.push([route.method, path, '{"surprise":1}', 'surprise'])
    invalid.push([route.method, path, '{', 'not JSON'])
    invalid.push([route.method, path, '[]', 'body'])
  }

  it('every route refuses unknown fields and malformed bodies with 400, and nothing reaches the service', async () => {
    await using _ = await start()
    for (const [method, path, body, named] of invalid) {
      const reply = await call(socketPath, method, path, body)
      const error = errorView.parse(reply.json())
      expect([method, path, body, reply.status, error.code]).toEqual([
        method,
        path,
        body,
        400,
        'request-invalid',
      ])
      expect(error.message).toContain(named)
      expect(error.message).not.toMatch(/^(body|query):/)
    }
    expect(service.calls).toEqual([])
  })

  it.each([
    ['POST', '/v1/vaults', '{"name":"x","region":"r"}', 'subscription'],
    ['POST', '/v1/vaults', '{"name":"../x","region":"r","subscription":"s"}', 'name'],
    ['PUT', '/v1/vaults/main/certificate', '{"certificate":"-----BEGIN PRIVATE KEY-----"}', 'private key'],
    ['POST', '/v1/vms/shop/protect', '{"policy":{"copyFrequencySeconds":31}}', 'copyFrequencySeconds'],
    ['POST', '/v1/vms/shop/failover/change-point', '{}', 'point'],
    ['POST', '/v1/vms/shop/failover/unplanned', '{"point":"yesterday"}', 'point'],
    ['POST', '/v1/vms/shop/failover/cleanup-test', '{"outcome":"so-so"}', 'outcome'],
    ['POST', '/v1/pairings', '{"source":"a","target":"b"}', 'policy'],
    ['GET', '/v1/jobs?limit=0', undefined, 'limit'],
    ['GET', '/v1/events?limit=100000', undefined, 'limit'],
    ['GET', '/v1/vms/sh%0Aop', undefined, 'control'],
    ['GET', `/v1/vms/${'x'.repeat(300)}`, undefined, 'longer'],
  ])('%s %s %s', async (method, path, body, named) => {
    await using _ = await start()
    const reply = await call(socketPath, method, path, body)
    expect([reply.status, errorView.parse(reply.json()).code]).toEqual([400, 'request-invalid'])
    expect(reply.text).toContain(named)
  })

  it('404 for what does not exist, 409 for what is busy, 400 with Allow for a wrong method', async () => {
    await using _ = await start()
    expect((await call(socketPath, 'GET', '/v1/vms/none')).status).toBe(404)
    expect((await call(socketPath, 'GET', '/v1/jobs/none/watch')).status).toBe(404)
    expect((await call(socketPath, 'GET', '/v2/anything')).status).toBe(404)
    service.vms.set('shop', { ...(await service.showVm('shop')), currentJob: 'job-9' })
    expect((await call(socketPath, 'POST', '/v1/vms/shop/pause')).status).toBe(409)
    const wrong = await call(socketPath, 'DELETE', '/v1/vms')
    expect([wrong.status, wrong.headers['allow']]).toEqual([400, 'GET'])
  })

  it('a body over the limit: 413, and the coordinator goes on', async () => {
    await using _ = await start()
    const reply = await call(socketPath, 'POST', '/v1/vaults', 'x'.repeat(adminLimits.maxRequestBytes + 1))
    expect([reply.status, errorView.parse(reply.json()).code]).toEqual([413, 'request-too-large'])
    expect((await call(socketPath, 'GET', '/v1/status')).status).toBe(200)
  })
})

describe('secrets (I15)', () => {
  it('a field that no schema names does not leave', async () => {
    service.vaults.set('main', { ...(await service.showVault('main')), ...{ privateKey: 'hunter2' } })
    await using _ = await start()
    expect((await call(socketPath, 'GET', '/v1/vaults')).text).not.toContain('hunter2')
  })

  it('an unforeseen failure is told by its id, not by its text', async () => {
    service.status = async () => {
      throw new Error('hunter2')
    }
    await using _ = await start()
    const reply = await call(socketPath, 'GET', '/v1/status')
    expect([reply.status, reply.text.includes('hunter2')]).toEqual([500, false])
    expect(errorView.parse(reply.json())).toMatchObject({ code: 'internal', details: { requestId: 'r1' } })
  })

  it('keys and tokens are taken out of the details of an error', async () => {
    service.status = async () => {
      const pem = 'x -----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----'
      throw new HotsiteError('not-found', 'gone', {
        details: { inner: [{ token: 'hunter2' }], pem, name: 'shop' },
      })
    }
    await using _ = await start()
    const reply = await call(socketPath, 'GET', '/v1/status')
    expect(reply.text).not.toContain('hunter2')
    expect(errorView.parse(reply.json()).details).toMatchObject({ name: 'shop' })
  })

  it('a stream that fails says so in its last line', async () => {
    service.watchJob = async function* () {
      yield service.jobs.get('job-1')
      throw new HotsiteError('disk-full', 'no room')
    }
    await service.pause('shop')
    await using _ = await start()
    const reply = await call(socketPath, 'GET', '/v1/jobs/job-1/watch')
    expect(JSON.parse(reply.text.trim().split('\n').at(-1) ?? '')).toMatchObject({
      error: { code: 'disk-full' },
    })
  })
})

it('status is a document of its schema', async () => {
  await using _ = await start()
  expect(statusView.parse((await call(socketPath, 'GET', '/v1/status')).json()).verdict).toBe('safe')
})
