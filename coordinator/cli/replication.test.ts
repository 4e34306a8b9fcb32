/** What operators type and read about the replication engine, against the admin socket with a service in memory. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { startAdminSocket } from '#coordinator/admin/socket.ts'
import { MemoryService } from '#coordinator/admin/testing/memory-service.ts'
import { samplePoint } from '#coordinator/admin/testing/sample-views.ts'
import { diskId } from '#shared/ids.ts'
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

const quick = (...words: string[]) => runInProcess(words, { socketPath })
const asked = () => service.calls.at(-1)

describe('hotsite vm verify', () => {
  it.each([
    [[], 5],
    [['--full'], 100],
    [['--sample', '20%'], 20],
    [['--sample', '0.5'], 0.5],
  ])('%j reads %d %%', async (words, percent) => {
    expect((await quick('vm', 'verify', 'shop', ...words)).exitCode).toBe(0)
    expect(asked()).toEqual({ name: 'verify', args: ['shop', { percent }] })
  })
  it.each([
    ['--sample', '0'],
    ['--sample', '101%'],
    ['--sample', 'some'],
    ['--full', '--sample', '5'],
  ])('%s %s is not valid', async (...words) => {
    expect((await quick('vm', 'verify', 'shop', ...words)).exitCode).toBe(2)
    expect(service.calls).toEqual([])
  })
  it('ends with the sentences of its job; the real command, too, ends with 6 when something bad remains', async () => {
    const sentence = 'disk0: proved equal, 100 % of blocks, just now'
    service.verify = async (vm) => {
      const job = service.jobs.start('verify', vm, ['Compare'])
      const ended = { state: 'succeeded' as const, endedAtMs: job.createdAtMs }
      const steps = job.steps.map((step) => ({ ...step, ...ended, observed: { sentences: [sentence] } }))
      const done = { ...job, ...ended, steps }
      service.jobs.all.set(job.jobId, done)
      return done
    }
    expect((await quick('vm', 'verify', 'shop', '--full')).out).toContain(`\n${sentence}\n`)
    service.jobs.ending = 'fail'
    service.verify = async (vm) => service.jobs.start('verify', vm, ['Compare'])
    expect((await runHotsite(['vm', 'verify', 'shop'], { socketPath })).exitCode).toBe(6)
  })
})

describe('the policy, typed', () => {
  it('timetable, zone, resynchronization, proof', async () => {
    const words = [
      '--throttle-window',
      'mon-fri 08:00-18:00 5MiB',
      '--throttle-window',
      'daily 00:00-24:00 0',
    ]
    const run = await quick(
      ...['vm', 'set-policy', 'shop', ...words, '--time-zone', 'Europe/Berlin'],
      ...['--resync-window', 'daily 22:00-05:00', '--proof-hours', '24'],
    )
    expect([run.exitCode, run.err]).toEqual([0, ''])
    const week = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun']
    expect(asked()?.args[1]).toEqual({
      throttleWindows: [
        { days: week.slice(0, 5), from: '08:00', to: '18:00', bytesPerSecond: 5 * 2 ** 20 },
        { days: week, from: '00:00', to: '00:00', bytesPerSecond: 0 },
      ],
      timeZone: 'Europe/Berlin',
      resync: 'window',
      resyncWindow: { days: week, from: '22:00', to: '05:00' },
      proofHours: 24,
    })
    await quick('vm', 'set-policy', 'shop', '--no-throttle-windows', '--resync', 'ask')
    expect(asked()?.args[1]).toEqual({ throttleWindows: [], resync: 'ask' })
  })
  it.each([
    [['--throttle-window', 'mon-fri 8-18 5MiB'], 'window-invalid'],
    [['--resync-window', 'someday 22:00-05:00'], 'window-invalid'],
    [['--resync-window', 'daily 22:00-05:00', '--resync', 'ask'], 'usage-invalid'],
    [['--throttle-window', 'daily 08:00-18:00 1MiB', '--no-throttle-windows'], 'usage-invalid'],
    [['--resync', 'sometimes'], 'Allowed choices'],
    [['--proof-hours', '9999'], 'whole number'],
  ])('%j is refused before anything is asked', async (words, named) => {
    const run = await quick('vm', 'set-policy', 'shop', ...words)
    expect([run.exitCode, run.err.includes(named)]).toEqual([2, true])
    expect(service.calls).toEqual([])
  })
  it('is shown as it was typed', async () => {
    const days = ['mon', 'tue', 'wed', 'thu', 'fri'] as const
    const shop = await service.showVm('shop')
    const throttle = { days: [...days], from: '08:00', to: '18:00', bytesPerSecond: 5 * 2 ** 20 }
    const policy = shop.policy && { ...shop.policy, throttleWindows: [throttle], resync: 'window' as const }
    service.vms.set('shop', { ...shop, policy })
    const { out } = await quick('vm', 'show', 'shop')
    expect(out).toContain(
      'mon-fri 08:00-18:00 at most 5 MiB/s, resynchronized daily 18:00-06:00, proved every 7 d',
    )
    expect(out).toContain('times of UTC')
  })
})

describe('the first copy', () => {
  it('at a time', async () => {
    expect((await quick('vm', 'protect', 'shop', '--start-at', '+2h')).exitCode).toBe(0)
    const { startAtMs } = z.object({ startAtMs: z.number() }).parse(asked()?.args[1])
    expect(startAtMs - Date.now()).toBeGreaterThan(7_100_000)
    const run = await quick('vm', 'protect', 'shop', '--start-at', 'tomorrow')
    expect([run.exitCode, run.err.includes('start-time-invalid')]).toEqual([2, true])
  })
  it('carried', async () => {
    const run = await quick('vm', 'protect', 'shop', '--offline', '/mnt/usb', '--copy-frequency', '30s')
    expect(run.out).toContain('Next: bring the folder to the target host, then hotsite vm import-seed shop')
    const folderAndPolicy = { folder: '/mnt/usb', policy: { copyFrequencySeconds: 30 } }
    expect(asked()).toMatchObject({ name: 'exportSeed', args: ['shop', folderAndPolicy] })
    await quick('vm', 'export-seed', 'shop', '--folder', '/mnt/usb', '--part-size', '2GiB')
    expect(asked()?.args).toEqual(['shop', { folder: '/mnt/usb', partBytes: 2 ** 31 }])
    await quick('vm', 'import-seed', 'shop', '--folder', '/mnt/b')
    expect(asked()).toEqual({ name: 'importSeed', args: ['shop', { folder: '/mnt/b' }] })
  })
  it.each([
    [['vm', 'export-seed', 'shop', '--folder', 'relative'], 'absolute path'],
    [['vm', 'import-seed', 'shop', '--folder', 'relative/too'], 'absolute path'],
    [['vm', 'export-seed', 'shop', '--folder', '/f', '--part-size', '1KiB'], 'partBytes'],
    [['vm', 'protect', 'shop', '--offline', '/f', '--start-at', '22:00'], '--start-at'],
    [['vm', 'protect', 'shop', '--part-size', '2GiB'], '--offline'],
    [['vm', 'import-seed', 'shop'], '--folder'],
  ])('%j is not valid', async (words, named) => {
    const run = await quick(...words)
    expect([run.exitCode, run.err.includes(named)]).toEqual([2, true])
    expect(service.calls).toEqual([])
  })
})

describe('what the engine says, shown', () => {
  const proof = { diskId: diskId.parse('disk0'), sizeBytes: 1, percent: 62, provedAtMs: null, badBlocks: 0 }
  it('proof, resynchronization, pace and merges', async () => {
    const estimate = { compareBytes: 20 * 2 ** 30, sendBytes: 310 * 2 ** 20, seconds: 240 }
    service.vms.set('shop', {
      ...(await service.showVm('shop')),
      proof: [
        proof,
        { ...proof, diskId: diskId.parse('disk1'), percent: 100, provedAtMs: Date.now() - 10_800_000 },
      ],
      resync: { cause: 'tracker-lost', waitsFor: 'approval', startsAtMs: null, estimate },
      progress: { doneBytes: 12 * 2 ** 30, totalBytes: 20 * 2 ** 30, secondsLeft: 250 },
      forecast: { churnBytesPerSecond: 14 * 2 ** 20, linkBytesPerSecond: 9 * 2 ** 20, breachAtMs: null },
      catchUp: { pendingCycles: 12, sendBytes: 310 * 2 ** 20, secondsLeft: 250 },
      slowedByMs: 30_000,
      mergeDebtBytes: 2 ** 32,
    })
    const { out } = await quick('vm', 'show', 'shop')
    for (const line of [
      'disk0: 62 % of the present pass, never proved',
      'disk1: proved equal, 100 % of blocks, 3 h ago',
      'resynchronization (tracker-lost) waits for approval: compares 20 GiB, sends about 310 MiB, about 4 min',
      '12 GiB of 20 GiB, about 4 min left',
      'changes 14 MiB/s, link 9 MiB/s',
      '12 copies wait, at most 310 MiB to send, about 4 min left',
      '4 GiB to do at the target, +30 s per cycle',
    ])
      expect(out).toContain(line)
    expect((await quick('vm', 'list')).out).toMatch(/PROVED\n.* 62 %/)
    expect((await quick('status')).out).toContain('PROVED')
  })
  it('points: what is wrong with them in the list, and why each is kept in sentences', async () => {
    service.points.set('1.7', samplePoint(7, { suspect: 'no longer compresses', keptBecause: 'newest' }))
    service.points.set('1.6', samplePoint(6, { keptBecause: 'before-suspect', pinned: true }))
    service.points.set('1.5', samplePoint(5, { damaged: true, keptBecause: 'may-heal' }))
    const { out } = await quick('point', 'list', 'shop')
    expect(out).toMatch(
      /1\.7 .*suspect .*newest\n1\.6 .*attested .*before suspect, pin\n1\.5 .*damaged .*may heal/,
    )
    expect(out).toContain('1.7 is suspect: no longer compresses')
    const why = (await quick('point', 'list', 'shop', '--why')).out
    expect(why).toContain('kept: it is the newest: the base of the next copy')
    expect(why).toContain('suspect: no longer compresses (a hint, not a verdict)')
    expect(why).toContain('it is also pinned')
    expect(why).toContain('damaged: it is not used until it is healed')
  })
  it('resync --now begins what waits, and is refused when nothing does', async () => {
    const refused = await quick('vm', 'resync', 'shop', '--now')
    expect([refused.exitCode, refused.err.includes('resync-not-waiting')]).toEqual([4, true])
    const resync = { cause: 'x', waitsFor: 'window' as const, startsAtMs: null, estimate: null }
    service.vms.set('shop', { ...(await service.showVm('shop')), resync })
    const run = await quick('vm', 'resync', 'shop', '--now', '--json')
    expect([run.exitCode, JSON.parse(run.out)]).toEqual([0, { vm: 'shop', approved: true }])
  })
  it.each([
    [['failover', 'test', 'shop'], { point: 'latest', network: null }],
    [['failover', 'planned', 'shop'], {}],
    [['failover', 'unplanned', 'shop', '--yes'], { point: 'latest', shutDownSource: false }],
  ])('%j proves the point first, unless told to skip it', async (words, options) => {
    await quick(...words)
    expect(asked()?.args[1]).toEqual({ ...options, verify: true })
    await quick(...words, '--skip-verify')
    expect(asked()?.args[1]).toEqual({ ...options, verify: false })
  })
})
