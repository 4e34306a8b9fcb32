/** What must never happen to a guest because of us (I11). */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { rmSync, statfsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { systemClock } from '#shared/clock.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { fabricVmId } from '#shared/ids.ts'
import { silentLog } from '#shared/log.ts'
import { eventually } from '#shared/testing/libvirt/eventually.ts'
import { hasLibvirt, type TestGuest, TestLibvirt } from '#shared/testing/libvirt/test-libvirt.ts'
import { spawnGuard } from './job-guard.ts'
import { openLibvirtHypervisor } from './libvirt-hypervisor.ts'

const FILLER_BYTES = 3 * 2 ** 30

describe.skipIf(!hasLibvirt())('the guard of a backup job', () => {
  let libvirt: TestLibvirt
  let guests = 0
  beforeAll(async () => {
    libvirt = await TestLibvirt.start()
  })
  afterEach(() => libvirt.stopGuests())
  afterAll(() => libvirt[Symbol.asyncDispose]())

  const open = () => {
    const scratchDir = join(libvirt.dir, 'scratch')
    const hypervisor = openLibvirtHypervisor({
      uri: libvirt.uri,
      scratchDir,
      clock: systemClock,
      log: silentLog,
    })
    libvirt.giveAway()
    return hypervisor
  }
  const makeGuest = (format: 'raw' | 'qcow2') =>
    libvirt.define({
      name: `guest${++guests}`,
      disks: [2 ** 20, 2 ** 23].map((sizeBytes) => ({ sizeBytes, format })),
    })
  const jobOf = ({ uuid }: TestGuest) => libvirt.virsh('domjobinfo', uuid)

  it('I11: the guard of a job that never began leaves the job of another program alone', async () => {
    const guest = await makeGuest('qcow2')
    await guest.start()
    open()
    const scratchDir = join(libvirt.dir, 'scratch')
    const request = join(libvirt.dir, 'other.xml')
    const disks = ['vda', 'vdb'].map(
      (disk) =>
        `<disk name='${disk}' type='file'><scratch file='${join(libvirt.dir, 'images', `${disk}.other`)}'/></disk>`,
    )
    const server = `<server transport='unix' socket='${join(libvirt.dir, 'other.sock')}'/>`
    writeFileSync(
      request,
      `<domainbackup mode='pull'>${server}<disks>${disks.join('')}</disks></domainbackup>`,
    )
    await libvirt.virsh('backup-begin', guest.uuid, request)
    const { uri } = libvirt
    const guard = spawnGuard({
      uri,
      uuid: guest.uuid,
      socketPath: join(scratchDir, 'ours.sock'),
      scratchDir,
      minFreeBytes: 2 ** 60,
    })
    // Room is scarce from the beginning, and then the agent is gone too.
    guard.stdin?.end()
    await once(guard, 'exit')
    expect(await jobOf(guest)).toContain('Backup')
    await libvirt.virsh('domjobabort', guest.uuid)
  })

  it('I11: an agent that is killed with a snapshot open: the job ends by itself, and the guest runs on', async () => {
    const guest = await makeGuest('qcow2')
    await guest.start()
    open()
    const holder = spawn(process.execPath, [
      '--input-type=module',
      '-e',
      `
      import { openLibvirtHypervisor } from '#recovery-agent/hypervisor/libvirt/libvirt-hypervisor.ts'
      import { systemClock } from '#shared/clock.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
      import { silentLog } from '#shared/log.ts'
      const hypervisor = openLibvirtHypervisor({ uri: ${JSON.stringify(libvirt.uri)}, clock: systemClock, log: silentLog,
        scratchDir: ${JSON.stringify(join(libvirt.dir, 'scratch'))} })
      globalThis.held = await hypervisor.openSnapshot({ fabricVmId: ${JSON.stringify(guest.uuid)}, hold: 'long' })
      process.stdout.write('held')
      setInterval(() => {}, 1000)
      `,
    ])
    try {
      await once(holder.stdout, 'data')
      expect(await jobOf(guest)).toContain('Backup')
    } finally {
      holder.kill('SIGKILL')
    }
    await eventually('the job ends', async () => (await jobOf(guest)).includes('None'))
    await guest.progress()
  })

  it('I11: room for scratch files that gets scarce ends the job; the guest runs on, and no other job is begun', async () => {
    const guest = await makeGuest('qcow2')
    await guest.start()
    const vm = fabricVmId.parse(guest.uuid)
    const filler = join(libvirt.dir, 'scratch', 'filler')
    open()
    const { bavail, bsize } = statfsSync(join(libvirt.dir, 'scratch'))
    // What others write on this file system meanwhile is less than the half of what the filler takes.
    const hypervisor = openLibvirtHypervisor({
      uri: libvirt.uri,
      scratchDir: join(libvirt.dir, 'scratch'),
      minFreeBytes: bavail * bsize - FILLER_BYTES / 2,
      clock: systemClock,
      log: silentLog,
    })
    const snapshot = await hypervisor.openSnapshot({ fabricVmId: vm, hold: 'long', seq: 1 })
    execFileSync('fallocate', ['-l', String(FILLER_BYTES), filler])
    try {
      await eventually('the job ends', async () => (await jobOf(guest)).includes('None'))
      await guest.progress()
      expect(() => snapshot.disks[0]?.read(Buffer.alloc(65_536), 0)).toThrow(HotsiteError)
      expect(snapshot.close()).toEqual({ intact: false })
      await expect(hypervisor.openSnapshot({ fabricVmId: vm, hold: 'brief', seq: 1 })).rejects.toMatchObject({
        code: 'scratch-low',
      })
    } finally {
      rmSync(filler)
    }
    const next = await hypervisor.openSnapshot({ fabricVmId: vm, hold: 'brief', seq: 1 })
    expect(next.close()).toEqual({ intact: true })
  })
})
