/** Data folders of another version, in use, or copied: refused before anything is touched, and replication is unharmed. */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from 'node:fs'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { formatChecksum } from '#recovery-agent/buffer/damaged-file.ts'
import { hasTool } from '#shared/testing/tools.ts'
import { agentEntry } from '../faults/world.ts'
import { freePort } from '../lab-kit/configs.ts'
import { findGuest, stopGuest } from '../lab-kit/guest.ts'
import { isRunning, type LabProcess, startDaemon, stopProcesses } from '../lab-kit/processes.ts'
import {
  type BadLuckLab,
  badLuckLab,
  changeConfig,
  configPath,
  connected,
  eventsOf,
  expectClear,
  expectReplicationGoesOn,
  folderOf,
  guestName,
  hotsite,
  layersOf,
  pointsOf,
  protectGuest,
  sourceDisk,
  stopDaemon,
  until,
  vmOf,
} from './bad-luck-lab.ts'

let site: BadLuckLab
let vm: string
beforeAll(async () => {
  site = await badLuckLab()
  vm = await protectGuest(site.lab)
})
afterAll(async () => {
  await site[Symbol.asyncDispose]()
})

const kindOf = (daemon: string) => daemon.split('-')[0] ?? ''

function bumpVersion(path: string): void {
  const db = new Database(path)
  // What is still in the write-ahead log goes into the file first, so that it can be compared byte for byte.
  db.pragma('wal_checkpoint(TRUNCATE)')
  db.pragma('user_version = 4711')
  // buffer.db says it twice, so that a flipped bit does not pass for a newer program.
  if (db.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'format'").get())
    db.prepare('UPDATE format SET version = 4711, checksum = ?').run(formatChecksum(4711))
  db.pragma('wal_checkpoint(TRUNCATE)')
  db.close()
}

const digest = (path: string) => createHash('sha256').update(readFileSync(path)).digest('hex')

describe('a data folder of another version', () => {
  it.each([
    ['coordinator', 'coordinator.db'],
    ['provider-site-a', 'provider.db'],
    ['agent-host-a1', 'state.db'],
    ['agent-host-a1', 'buffer.db'],
    ['agent-host-b1', 'replica.db'],
  ])('%s with a newer %s', async (daemon, name) => {
    const data = join(folderOf(site.lab, daemon), 'data')
    await stopDaemon(site.lab, daemon)
    const kept = join(site.dir, 'kept')
    cpSync(data, kept, { recursive: true })
    const found = findFile(data, name)
    bumpVersion(found)
    const before = digest(found)
    const said = await hotsite(site.lab, kindOf(daemon), '--config', configPath(site.lab, daemon))
    expectClear(said, { code: 'data-version-unknown', exitCode: 1, says: new RegExp(`${name}.*4711`) })
    expect(digest(found)).toBe(before)
    rmSync(data, { recursive: true })
    cpSync(kept, data, { recursive: true })
    rmSync(kept, { recursive: true })
    site.lab.restart(daemon)
    if (daemon === 'coordinator')
      await until('it answers', async () => (await hotsite(site.lab, 'status')).exitCode === 0)
    await expectReplicationGoesOn(site.lab)
  })
})

function findFile(dir: string, name: string): string {
  const found = readdirSync(dir, { recursive: true, encoding: 'utf8' }).find((path) => path.endsWith(name))
  if (found === undefined) throw new Error(`no ${name} under ${dir}`)
  return join(dir, found)
}

describe('one data folder', () => {
  it.each(['coordinator', 'provider-site-a', 'agent-host-a1'])('a second %s on it', async (daemon) => {
    const said = await hotsite(site.lab, kindOf(daemon), '--config', configPath(site.lab, daemon))
    expectClear(said, { code: 'data-dir-in-use', exitCode: 4, says: /data/ })
    expect(site.lab.isAlive(daemon)).toBe(true)
  })

  it('an agent on the folder of a provider', async () => {
    const dir = join(site.dir, 'confused')
    mkdirSync(dir)
    copyFileSync(configPath(site.lab, 'agent-host-a1'), join(dir, 'config.yaml'))
    changeConfig(join(dir, 'config.yaml'), { dataDir: join(folderOf(site.lab, 'provider-site-a'), 'data') })
    const said = await hotsite(site.lab, 'agent', '--config', join(dir, 'config.yaml'))
    expect(said.err).toMatch(/\[(not-registered|data-dir-in-use)\]/)
    expect(said.err).toContain('What to do:')
    expect(said.exitCode).not.toBe(0)
    await expectReplicationGoesOn(site.lab)
  })
})

describe('two agents with one identity', () => {
  it.each(['agent-host-a1', 'agent-host-b1'])('a copy of %s runs beside it', async (daemon) => {
    const dir = join(site.dir, `twin-of-${daemon}`)
    mkdirSync(dir)
    const data = join(folderOf(site.lab, daemon), 'data')
    const newer = (await eventsOf(site.lab)).length
    await stopDaemon(site.lab, daemon)
    cpSync(data, join(dir, 'data'), { recursive: true })
    copyFileSync(configPath(site.lab, daemon), join(dir, 'config.yaml'))
    changeConfig(join(dir, 'config.yaml'), { listen: { host: '127.0.0.1', port: await freePort() } })
    site.lab.restart(daemon)
    await until('the first one is back', () => connected(site.lab, daemon.slice('agent-'.length)))
    const twin: LabProcess = startDaemon({
      name: 'twin',
      entry: agentEntry,
      args: ['--config', join(dir, 'config.yaml')],
      dir,
    })
    try {
      await until('the event', async () =>
        (await eventsOf(site.lab))
          .slice(0, -newer || undefined)
          .some(({ code, severity }) => code === 'identity-twice' && severity !== 'info'),
      )
      expect((await hotsite(site.lab, 'status')).out).toContain(`two machines run as ${daemon.slice(6)}`)
    } finally {
      await stopProcesses([twin], 10_000)
    }
    expect(isRunning(twin)).toBe(false)
    await until('it is protected', async () => (await vmOf(site.lab)).state === 'protected')
    await expectReplicationGoesOn(site.lab)
  })

  it.skipIf(!hasTool('qemu-img'))('afterwards the newest point is the source, byte for byte', async () => {
    await stopGuest(findGuest(site.lab.layout, 'host-a1', guestName))
    await expectReplicationGoesOn(site.lab)
    const point = await expectReplicationGoesOn(site.lab)
    expect((await pointsOf(site.lab)).every(({ attested }) => attested)).toBe(true)
    const layers = layersOf(site.lab, vm, point)
    expect(layers).toHaveLength(2)
    for (const { disk, path } of layers) {
      const args = ['compare', '-U', '-f', 'qcow2', '-F', 'raw', path, sourceDisk(site.lab, disk)]
      expect(spawnSync('qemu-img', args, { encoding: 'utf8' })).toMatchObject({ status: 0 })
    }
    expect(existsSync(sourceDisk(site.lab, 'disk0'))).toBe(true)
    expect(statSync(sourceDisk(site.lab, 'disk0')).size).toBe(8 * 2 ** 20)
  })
})
