/**
 * The target's disk, the buffer's disk and the scratch, full at every stage: replication waits, names what is full and
 * where, and goes on by itself with what it had. Two real agents; the judge is qemu-img.
 */
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { startWhenRoom } from '#recovery-agent/daemon/start-when-room.ts'
import { type OtherVm, protectOther } from '#recovery-agent/testing/many-vms.ts'
import { compareImages, until, VM } from '#recovery-agent/testing/two-hosts.ts'
import { counterOf } from '#shared/folder/testing/test-fabric.ts'
import { overlayId } from '#shared/ids.ts'
import { silentLog } from '#shared/log.ts'
import { replicationPolicy } from '#shared/messages/policy.ts'
import {
  betweenCycles,
  canRun,
  expectGoesOn,
  expectSaid,
  fast,
  mib,
  never,
  openSite,
  patient,
  pointsOf,
  policy,
  type Site,
  waitMs,
  watch,
  why,
} from './full-disk-site.ts'
import { mountSmallDisk, type SmallDisk } from './small-disk.ts'

/** Every wait has its own, shorter bound. */
vi.setConfig({ testTimeout: 180_000, hookTimeout: 180_000 })

/** Also of tests that failed half way. */
const made: { readonly dir: string; readonly disk: SmallDisk }[] = []
const diskAt = (name: string, sizeMiB: number, sub = '') => {
  const dir = mkdtempSync(join(tmpdir(), `hotsite-full-${name}-`))
  const disk = mountSmallDisk(join(dir, sub), sizeMiB)
  made.push({ dir, disk })
  return disk
}
afterAll(() => {
  for (const { dir, disk } of made) {
    disk[Symbol.dispose]()
    rmSync(dir, { recursive: true, force: true })
  }
})

describe.skipIf(!canRun)(`the disk of the replicas is full${why}`, () => {
  let disk: SmallDisk
  let site: Site
  let sound: OtherVm
  let seed = 0
  let syncs = 0
  const atSeal = { armed: false }

  beforeAll(async () => {
    disk = diskAt('target', 160)
    site = await openSite(disk.path, { config: { west: { replicaDir: disk.path } } })
    const { hosts } = site
    await hosts.west.stop()
    await hosts.west.start({
      overrides: { channelLimits: patient },
      crashPoint: (name) => {
        if (atSeal.armed && name === 'target:before-seal') disk.fill()
      },
    })
    watch(hosts.west, site.broken)
    hosts.write(0, 0, 48, ++seed)
    await hosts.protect({ policy })
    // Of the same hosts, the other way round: it needs the disk of the other one.
    const turned = { ...hosts, east: hosts.west, west: hosts.east }
    sound = await protectOther(turned, {
      name: 'sound',
      diskBytes: 4 * mib,
      via: hosts.east.agent.listen.port,
      policy,
    })
    await until('two points', async () => (await pointsOf(hosts)).length >= 2, waitMs)
  }, 120_000)
  afterEach(() => {
    disk.relieve()
    atSeal.armed = false
  })
  afterAll(async () => {
    await site[Symbol.asyncDispose]()
  })

  /** Points that were there stay, and the other VM of these hosts goes on. */
  async function expectOthersUnharmed(before: readonly number[]): Promise<void> {
    // Retention may have let go of the oldest while there was room.
    expect(await pointsOf(site.hosts)).toEqual(expect.arrayContaining(before.slice(-3)))
    const report = () => site.hosts.west.report(sound.vmId)
    const { ackedSeq } = report()
    await until('the other VM goes on', () => report().ackedSeq >= ackedSeq + 2, waitMs)
    expect(report().error).toBeNull()
  }

  it('in the middle of a delta', async () => {
    const { hosts } = site
    const before = await pointsOf(hosts)
    await betweenCycles(hosts, () => {
      disk.fill(2 * mib)
      hosts.write(0, 10, 96, ++seed)
    })
    await expectSaid(hosts, disk.path)
    await expectOthersUnharmed(before)
    disk.relieve()
    await expectGoesOn(site, syncs)
  })

  it('to the last byte, when replica.db has to be written', async () => {
    const { hosts } = site
    const before = await pointsOf(hosts)
    await betweenCycles(hosts, () => {
      disk.fill()
      hosts.write(0, 3, 1, ++seed)
    })
    await expectSaid(hosts, disk.path)
    await expectOthersUnharmed(before)
    disk.relieve()
    await expectGoesOn(site, syncs)
  })

  it('at the seal of a delta', async () => {
    const { hosts } = site
    const before = await pointsOf(hosts)
    await betweenCycles(hosts, () => {
      atSeal.armed = true
      hosts.write(0, 40, 32, ++seed)
    })
    await expectSaid(hosts, disk.path)
    atSeal.armed = false
    await expectOthersUnharmed(before)
    disk.relieve()
    await expectGoesOn(site, syncs)
  })

  it('in the middle of a synchronization', async () => {
    const { hosts } = site
    const before = await pointsOf(hosts)
    await betweenCycles(hosts, () => {
      disk.fill(2 * mib)
      hosts.write(0, 60, 128, ++seed)
    })
    syncs += 1
    await hosts.east.agent.handlers['replication.resync']({ vmId: VM, cause: 'requested' }, never)
    expect((await expectSaid(hosts, disk.path)).cause).toBe('requested')
    await expectOthersUnharmed(before)
    disk.relieve()
    await expectGoesOn(site, syncs)
  })

  it('when a point is opened for a failover', async () => {
    const { hosts } = site
    const id = overlayId.parse('overlay-1')
    const create = () =>
      hosts.west.agent.handlers['overlay.create'](
        { vmId: VM, overlayId: id, point: null, purpose: 'test', verify: true },
        never,
      )
    disk.fill(4 * mib)
    await expect(create()).rejects.toMatchObject({
      code: 'disk-full',
      message: expect.stringContaining(`no room left in ${disk.path}`),
    })
    expect(readdirSync(join(disk.path, 'overlays'), { recursive: true }).join()).not.toContain('.tmp')
    disk.relieve()
    const { point, disks } = await create()
    expect(await pointsOf(hosts)).toContain(point.seq)
    for (const [index, overlay] of disks.entries()) {
      expect(overlay.format).toBe('raw')
      const diskId = site.hosts.vm.file.disks[index]?.id ?? overlay.diskId
      compareImages(await hosts.west.agent.store.layerPath(VM, point, diskId), overlay.path)
    }
    await hosts.west.agent.handlers['overlay.remove']({ vmId: VM, overlayId: id }, never)
    await expectGoesOn(site, syncs)
  })

  it('in the middle of a merge: points that are due to go stay, newer ones come', async () => {
    const { hosts } = site
    for (let i = 0; i < 3; i++) {
      await betweenCycles(hosts, () => hosts.write(0, 200 + 32 * i, 32, ++seed))
    }
    const { sealedSeq } = hosts.east.report(VM)
    await until('points of them', () => hosts.east.report(VM).ackedSeq > sealedSeq, waitMs)
    disk.fill(1.25 * mib)
    const fewer = replicationPolicy.parse({ ...policy, retentionPoints: 0, retentionIntervalSeconds: 0 })
    const before = (await pointsOf(hosts)).length
    await hosts.west.agent.handlers['policy.update']({ vmId: VM, policy: fewer }, never)
    const said = await until(
      'the merge is said to lack room',
      () =>
        hosts.west
          .events()
          .find(({ code, message }) => code === 'disk-full' && message.includes('due to go')),
      waitMs,
    )
    expect(said.message).toContain(`no room left in ${disk.path}`)
    expect(before).toBeGreaterThan(1)
    disk.relieve()
    await until('merges have caught up', async () => (await pointsOf(hosts)).length === 1, waitMs)
    await expectGoesOn(site, syncs)
  })

  it('while the agent starts: it waits, and takes nothing for damaged', async () => {
    const { hosts } = site
    await hosts.west.stop()
    disk.fill()
    const reasons: string[] = []
    const log = { ...silentLog, error: (_: string, fields = {}) => void reasons.push(JSON.stringify(fields)) }
    const starting = startWhenRoom(() => hosts.west.start({ overrides: { channelLimits: patient } }), {
      clock: fast,
      log,
      signal: never,
    })
    await until('a second attempt', () => reasons.length >= 2, waitMs)
    expect(reasons.every((reason) => reason.includes('disk-full') && reason.includes(disk.path))).toBe(true)
    disk.relieve()
    await starting
    watch(hosts.west, site.broken)
    expect(readdirSync(disk.path).filter((name) => name.includes('damaged'))).toEqual([])
    await expectGoesOn(site, syncs)
  })
})

describe.skipIf(!canRun)(`the disk of the buffer and of state.db is full${why}`, () => {
  let disk: SmallDisk
  let site: Site
  let seed = 100

  beforeAll(async () => {
    disk = diskAt('source', 96)
    const config = { east: { dataDir: disk.path, bufferMaxBytes: 256 * mib } }
    site = await openSite(disk.path, { config })
    site.hosts.write(0, 0, 48, ++seed)
    await site.hosts.protect({ policy })
    await until('two points', async () => (await pointsOf(site.hosts)).length >= 2, waitMs)
  }, 120_000)
  afterEach(() => disk.relieve())
  afterAll(async () => {
    await site[Symbol.asyncDispose]()
  })

  // Each delta is larger than the ones before: what those left free inside buffer.db is used first.
  it.each([
    [0, 64],
    [0.25, 96],
    [1, 144],
    [2.5, 224],
  ])('but for %d MiB, in a copy cycle of %i blocks', async (left, blocks) => {
    const { hosts } = site
    const before = await pointsOf(hosts)
    await betweenCycles(hosts, () => {
      disk.fill(left * mib)
      hosts.write(0, 50, blocks, ++seed)
    })
    await expectSaid(hosts, disk.path)
    expect((await pointsOf(hosts)).length).toBeGreaterThanOrEqual(
      Math.min(before.length, policy.retentionPoints),
    )
    disk.relieve()
    await expectGoesOn(site, 0)
  })

  it('when the target acknowledges: what it holds is not sent again', async () => {
    const { hosts } = site
    await hosts.west.stop()
    const { sealedSeq } = hosts.east.report(VM)
    hosts.write(0, 0, 64, ++seed)
    await until('two deltas wait', () => hosts.east.report(VM).sealedSeq >= sealedSeq + 2, waitMs)
    disk.fill()
    await hosts.west.start({ overrides: { channelLimits: patient } })
    watch(hosts.west, site.broken)
    await until('a point arrives', async () => ((await pointsOf(hosts)).at(-1) ?? 0) > sealedSeq, waitMs)
    await expectSaid(hosts, disk.path)
    disk.relieve()
    await expectGoesOn(site, 0)
  })

  it('while the agent starts: it waits, and takes nothing for damaged', async () => {
    const { hosts } = site
    await hosts.east.stop()
    disk.fill()
    const reasons: string[] = []
    const log = { ...silentLog, error: (_: string, fields = {}) => void reasons.push(JSON.stringify(fields)) }
    const starting = startWhenRoom(() => hosts.east.start(), { clock: fast, log, signal: never })
    await until('a second attempt', () => reasons.length >= 2, waitMs)
    expect(reasons.every((reason) => reason.includes('disk-full') && reason.includes(disk.path))).toBe(true)
    disk.relieve()
    await starting
    watch(hosts.east, site.broken)
    expect(readdirSync(disk.path).filter((name) => name.includes('damaged'))).toEqual([])
    await expectGoesOn(site, 0)
  })

  it('of what waits in the buffer itself: it drains without anybody making room', async () => {
    const { hosts } = site
    await hosts.west.stop()
    let seen = -1
    await until(
      'the disk is full',
      () => {
        const { sealedSeq, error } = hosts.east.report(VM)
        if (sealedSeq > seen) hosts.write(0, 0, 320, ++seed)
        seen = sealedSeq
        return error?.code === 'disk-full'
      },
      waitMs,
    )
    await expectSaid(hosts, disk.path)
    await hosts.west.start({ overrides: { channelLimits: patient } })
    watch(hosts.west, site.broken)
    await until(
      'everything that waited is acknowledged',
      () => {
        const { ackedSeq, bufferedBytes } = hosts.east.report(VM)
        return ackedSeq >= seen && bufferedBytes < mib
      },
      waitMs,
    )
    // buffer.db keeps its size: a VM whose snapshot has to be copied finds room only when somebody makes it.
    disk.grow(160)
    await expectGoesOn(site, 0)
  })
})

describe.skipIf(!canRun)(`the scratch is full${why}`, () => {
  it('the guest runs on, VMs that need no copy go on, and the synchronization follows', async () => {
    const disk = diskAt('scratch', 2, 'data/snapshots')
    const dataDir = join(disk.path, '..')
    await using site = await openSite(dataDir, { config: { east: { dataDir } } })
    const { hosts } = site
    hosts.write(0, 32, 160, 1)
    await hosts.fabric.start(hosts.vm)
    const sound = await protectOther(hosts, {
      name: 'sound',
      diskBytes: 4 * mib,
      via: hosts.west.agent.listen.port,
      policy,
    })
    await hosts.protect({ policy })
    await expectSaid(hosts, disk.path)
    const beats = counterOf(hosts.vm, 0)
    await until('the guest writes', () => counterOf(hosts.vm, 0) > beats, waitMs)
    const { ackedSeq } = hosts.east.report(sound.vmId)
    await until('the other VM goes on', () => hosts.east.report(sound.vmId).ackedSeq >= ackedSeq + 2, waitMs)
    expect(existsSync(join(disk.path, '1'))).toBe(false)
    disk.grow(64)
    await until('the first point', async () => (await pointsOf(hosts)).length >= 1, waitMs)
    await hosts.fabric.kill(hosts.vm)
    await expectGoesOn(site, 0)
  })
})
