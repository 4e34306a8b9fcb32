/** No room: at the target, and in the buffer of the source. Replication waits, says so, and goes on by itself. */
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { closeSync, cpSync, mkdirSync, openSync, renameSync, rmSync, statSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { hasTool } from '#shared/testing/tools.ts'
import { findGuest, stopGuest } from '../lab-kit/guest.ts'
import {
  type BadLuckLab,
  badLuckLab,
  changeConfig,
  configPath,
  connected,
  eventsOf,
  expectReplicationGoesOn,
  folderOf,
  guestName,
  hotsite,
  layersOf,
  newestOf,
  type Point,
  pointsOf,
  protectGuest,
  sourceDisk,
  stopDaemon,
  until,
  vmOf,
} from './bad-luck-lab.ts'

const mib = 2 ** 20
const diskMiB = 40
const smallMiB = 160

let site: BadLuckLab
let vm: string
let mounted = false
const targetData = () => join(folderOf(site.lab, 'agent-host-b1'), 'data')

beforeAll(async () => {
  site = await badLuckLab({ diskMiB })
  mounted = await moveTargetToSmallDisk()
  await stopDaemon(site.lab, 'agent-host-a1')
  changeConfig(configPath(site.lab, 'agent-host-a1'), { bufferMaxBytes: 64 * mib })
  site.lab.restart('agent-host-a1')
  await until(
    'both agents are back',
    async () => (await connected(site.lab, 'host-a1')) && (await connected(site.lab, 'host-b1')),
  )
  vm = await protectGuest(site.lab)
  await stopGuest(findGuest(site.lab.layout, 'host-a1', guestName))
})
afterAll(async () => {
  await stopDaemon(site.lab, 'agent-host-b1')
  if (mounted) spawnSync('umount', [targetData()])
  await site[Symbol.asyncDispose]()
})

/** False where file systems may not be mounted. */
async function moveTargetToSmallDisk(): Promise<boolean> {
  const data = targetData()
  await stopDaemon(site.lab, 'agent-host-b1')
  renameSync(data, `${data}.old`)
  mkdirSync(data, { mode: 0o700 })
  const { status } = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${smallMiB}m,mode=700`, 'tmpfs', data])
  cpSync(`${data}.old`, data, { recursive: true })
  site.lab.restart('agent-host-b1')
  return status === 0
}

/** Noise over the first part of the data disk. */
function overwrite(sizeBytes: number): void {
  const fd = openSync(sourceDisk(site.lab, 'disk1'), 'r+')
  for (let at = 0; at < sizeBytes; at += 4 * mib)
    writeSync(fd, randomBytes(Math.min(4 * mib, sizeBytes - at)), 0, undefined, at)
  closeSync(fd)
}

function fillTarget(): string {
  const path = join(targetData(), 'filler')
  const fd = openSync(path, 'w')
  const piece = Buffer.alloc(64 * 1024, 1)
  try {
    for (;;) writeSync(fd, piece)
  } catch {
    // No room is what was wanted.
  }
  closeSync(fd)
  return path
}

/** At a point captured since then: deltas of before drain first. Daemons and test share one clock. */
async function expectSameAsSource(sinceMs: number): Promise<void> {
  let point: Point | undefined
  await until('a point of the last content', async () => {
    point = newestOf(await pointsOf(site.lab))
    return point !== undefined && point.capturedAtMs > sinceMs
  })
  if (!point) throw new Error('no point')
  expect(point.attested).toBe(true)
  if (!hasTool('qemu-img')) return
  const layers = layersOf(site.lab, vm, point)
  expect(layers).toHaveLength(2)
  for (const { disk, path } of layers) {
    const args = ['compare', '-U', '-f', 'qcow2', '-F', 'raw', path, sourceDisk(site.lab, disk)]
    const { status, stdout } = spawnSync('qemu-img', args, { encoding: 'utf8' })
    expect({ disk, status, stdout }).toMatchObject({ status: 0 })
  }
}

const resyncs = async () => (await eventsOf(site.lab)).filter(({ code }) => code.startsWith('resync'))

it('target disk full: it waits, status says so, and it goes on when there is room', async (context) => {
  if (!mounted) context.skip()
  const before = newestOf(await pointsOf(site.lab))
  const filler = fillTarget()
  overwrite(6 * mib)
  const writtenAtMs = Date.now()
  await until('status names the full disk', async () =>
    /disk-full|no room|ENOSPC|room left/i.test((await hotsite(site.lab, 'status')).out),
  )
  const said = (await hotsite(site.lab, 'status')).out
  expect(said).toContain('the target host-b1 refuses')
  expect(said).toContain('Free space or enlarge it')
  expect((await eventsOf(site.lab)).map(({ code }) => code)).toContain('disk-full')
  const kept = (await pointsOf(site.lab)).map(({ name }) => name)
  expect(kept).toContain(before?.name)
  expect(await connected(site.lab, 'host-b1')).toBe(true)
  rmSync(filler)
  await expectReplicationGoesOn(site.lab)
  await expectReplicationGoesOn(site.lab)
  await expectSameAsSource(writtenAtMs)
  await until('health is normal again', async () => (await vmOf(site.lab)).health === 'normal')
  expect(await resyncs()).toEqual([])
})

it('buffer full: the tracker collects, and everything drains without a resynchronization', async () => {
  const sentBefore = (await vmOf(site.lab)).totals?.sentBytes ?? 0
  await site.lab.kill('agent-host-b1')
  const buffer = join(folderOf(site.lab, 'agent-host-a1'), 'data', 'buffer.db')
  await until('the buffer is full', async () => {
    overwrite(24 * mib)
    await new Promise((resolve) => setTimeout(resolve, 1000))
    return /buffer/.test((await hotsite(site.lab, 'status')).out)
  })
  await until('an event says so', async () =>
    (await eventsOf(site.lab)).some(({ code }) => code === 'buffer-full'),
  )
  // More than the buffer holds, and more than it has room for, while nothing can be taken.
  overwrite(36 * mib)
  const writtenAtMs = Date.now()
  expect(statSync(buffer).size).toBeLessThan(80 * mib)
  site.lab.restart('agent-host-b1')
  await expectReplicationGoesOn(site.lab)
  await until('everything drained', async () => (await vmOf(site.lab)).health === 'normal')
  await expectReplicationGoesOn(site.lab)
  await expectSameAsSource(writtenAtMs)
  expect(await resyncs()).toEqual([])
  expect(((await vmOf(site.lab)).totals?.sentBytes ?? 0) - sentBefore).toBeLessThan(200 * mib)
})
