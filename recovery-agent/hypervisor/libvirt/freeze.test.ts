/** Application-consistent points, and what must never become of a guest that is frozen for one (I11). */
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { systemClock } from '#shared/clock.ts'
import { fabricVmId } from '#shared/ids.ts'
import { silentLog } from '#shared/log.ts'
import { eventually } from '#shared/testing/libvirt/eventually.ts'
import { hasLibvirt, type TestGuest, TestLibvirt } from '#shared/testing/libvirt/test-libvirt.ts'
import type { Snapshot } from '../port.ts'
import { spawnFreezeGuard } from './freeze-guard.ts'
import { openLibvirtHypervisor } from './libvirt-hypervisor.ts'

const MiB = 2 ** 20
const env = { ...process.env, PATH: `${process.env['PATH']}:/usr/sbin:/sbin` }

describe.skipIf(!hasLibvirt())('guests at rest', () => {
  let libvirt: TestLibvirt
  let guests = 0
  beforeAll(async () => {
    libvirt = await TestLibvirt.start()
  })
  afterEach(() => libvirt.stopGuests())
  afterAll(() => libvirt[Symbol.asyncDispose]())

  const scratchDir = () => join(libvirt.dir, 'scratch')
  const open = (freezeLimitMs = 60_000) => {
    const hypervisor = openLibvirtHypervisor({
      uri: libvirt.uri,
      scratchDir: scratchDir(),
      freezeLimitMs,
      clock: systemClock,
      log: silentLog,
    })
    libvirt.giveAway()
    return hypervisor
  }
  const makeGuest = async (role = 'orders') => {
    const disk = { sizeBytes: 16 * MiB, format: 'qcow2', fileSystem: 'ext4' } as const
    return await libvirt.define({ name: `rest${++guests}`, role, disks: [disk, disk] })
  }
  const statusOf = (guest: TestGuest) => guest.ask('guest-fsfreeze-status')
  const isThawed = (guest: TestGuest) => statusOf(guest).then((status) => status === 'thawed')

  /** What the tracker says, on what was copied before. */
  function follow(snapshot: Snapshot, pathOf: (diskId: string) => string): void {
    for (const disk of snapshot.disks) {
      const file = openSync(pathOf(disk.diskId), 'r+')
      try {
        ftruncateSync(file, disk.sizeBytes)
        const extents =
          disk.changes.kind === 'tracked'
            ? disk.changes.extents
            : [{ offsetBytes: 0, lengthBytes: disk.sizeBytes }]
        for (const { offsetBytes, lengthBytes } of extents) {
          const bytes = Buffer.alloc(lengthBytes)
          disk.read(bytes, offsetBytes)
          writeSync(file, bytes, 0, lengthBytes, offsetBytes)
        }
      } finally {
        closeSync(file)
      }
    }
  }

  it('in 20 cycles under load, with and without freeze, every point equals the source by qemu-img; frozen ones need no repair', async () => {
    const guest = await makeGuest()
    await guest.startWithAgent()
    const hypervisor = open()
    const vm = fabricVmId.parse(guest.uuid)
    const pathOf = (diskId: string) => join(libvirt.dir, 'images', `copy-${diskId}.raw`)
    for (const disk of ['vda', 'vdb']) closeSync(openSync(pathOf(disk), 'w'))
    for (let seq = 1; seq <= 20; seq++) {
      const quiesce = seq % 2 === 0
      const snapshot = await hypervisor.openSnapshot({ fabricVmId: vm, hold: 'brief', seq, quiesce })
      try {
        expect(snapshot.consistency, snapshot.notQuiesced).toBe(quiesce ? 'application' : 'crash')
        follow(snapshot, pathOf)
        for (const { diskId } of snapshot.disks) {
          const shown = `nbd+unix:///${diskId}?socket=${join(scratchDir(), `${guest.uuid}.sock`)}`
          execFileSync('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', pathOf(diskId), shown], {
            stdio: 'pipe',
          })
        }
      } finally {
        expect(snapshot.close()).toEqual({ intact: true })
      }
      if (quiesce) {
        expect(snapshot.freezeMs()).toBeGreaterThan(0)
        // As it lies there: nothing is replayed before.
        for (const { diskId } of snapshot.disks)
          expect(spawnSync('e2fsck', ['-f', '-n', pathOf(diskId)], { env, stdio: 'pipe' }).status).toBe(0)
        expect(await isThawed(guest)).toBe(true)
      }
      await hypervisor.release(vm, seq)
    }
  })

  it('a guest without an agent: crash-consistent, and the reason is given', async () => {
    const guest = await makeGuest('stubborn')
    await guest.start()
    const snapshot = await open().openSnapshot({
      fabricVmId: fabricVmId.parse(guest.uuid),
      hold: 'brief',
      quiesce: true,
    })
    expect(snapshot).toMatchObject({ consistency: 'crash', notQuiesced: 'no guest agent answers in it' })
    expect(snapshot.close()).toEqual({ intact: true })
  })

  it('I11: an agent that is killed between freeze and thaw: the guest goes on within five seconds', async () => {
    const guest = await makeGuest()
    await guest.startWithAgent()
    const guard = JSON.stringify({ uri: libvirt.uri, uuid: guest.uuid, limitMs: 600_000 })
    const module = JSON.stringify(join(import.meta.dirname, 'freeze-guard.ts'))
    const holder = spawn(
      process.execPath,
      [
        '--input-type=module',
        '-e',
        `import { spawnFreezeGuard } from ${module}; spawnFreezeGuard(${guard}); console.log('up'); setInterval(() => {}, 1000)`,
      ],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    )
    await once(holder.stdout, 'data')
    await libvirt.virsh('domfsfreeze', guest.name)
    expect(await statusOf(guest)).toBe('frozen')
    holder.kill('SIGKILL')
    const startedMs = systemClock.monotonicMs()
    await eventually('the guest goes on', () => isThawed(guest))
    expect(systemClock.monotonicMs() - startedMs).toBeLessThan(5_000)
  })

  it('I11: a freeze that lasts too long is ended while the agent lives', async () => {
    const guest = await makeGuest()
    await guest.startWithAgent()
    const guard = spawnFreezeGuard({ uri: libvirt.uri, uuid: guest.uuid, limitMs: 1_500 })
    await libvirt.virsh('domfsfreeze', guest.name)
    await eventually('the guest goes on', () => isThawed(guest))
    const gone = once(guard, 'exit')
    guard.stdin?.end('done\n')
    await gone
  })

  it('I11: a guest that an earlier life left frozen goes on when the agent starts', async () => {
    const guest = await makeGuest()
    await guest.startWithAgent()
    const hypervisor = open()
    const snapshot = await hypervisor.openSnapshot({
      fabricVmId: fabricVmId.parse(guest.uuid),
      hold: 'brief',
    })
    snapshot.close()
    execFileSync('touch', [join(scratchDir(), `${guest.uuid}.frozen`)])
    await libvirt.virsh('domfsfreeze', guest.name)
    await open().recover()
    expect(await statusOf(guest)).toBe('thawed')
  })
})
