import { execFileSync } from 'node:child_process'
import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { systemClock } from '#shared/clock.ts'
import { fabricVmId } from '#shared/ids.ts'
import { openVirsh } from '#shared/libvirt/virsh.ts'
import { silentLog } from '#shared/log.ts'
import { replicationPolicy } from '#shared/messages/policy.ts'
import {
  COUNTER_OFFSET_BYTES,
  hasLibvirt,
  type TestGuest,
  TestLibvirt,
} from '#shared/testing/libvirt/test-libvirt.ts'
import { StoreFixture } from '../../replica/testing/fixture.ts'
import { testServer, testVm } from '../../replica/testing/model-vm.ts'
import { type HypervisorSubject, hypervisorConformance } from '../conformance.ts'
import type { HostHypervisor, Snapshot } from '../port.ts'
import { openLibvirtFiles } from './libvirt-files.ts'
import { openLibvirtHypervisor } from './libvirt-hypervisor.ts'

const MiB = 2 ** 20
const defaultPolicy = replicationPolicy.parse({})

describe.skipIf(!hasLibvirt())('with real guests', () => {
  let libvirt: TestLibvirt
  let guests = 0
  beforeAll(async () => {
    libvirt = await TestLibvirt.start()
  })
  afterEach(() => libvirt.stopGuests())
  afterAll(() => libvirt[Symbol.asyncDispose]())

  const open = (): HostHypervisor => {
    const hypervisor = openLibvirtHypervisor({
      uri: libvirt.uri,
      scratchDir: join(libvirt.dir, 'scratch'),
      clock: systemClock,
      log: silentLog,
    })
    libvirt.giveAway()
    return hypervisor
  }

  const subject = async (): Promise<HypervisorSubject> => {
    const sizesBytes = [MiB, 4 * 65_536 + 512] as const
    const guest = await libvirt.define({
      name: `guest${++guests}`,
      disks: sizesBytes.map((sizeBytes) => ({ sizeBytes, format: 'qcow2' })),
    })
    return {
      hypervisor: open(),
      vm: fabricVmId.parse(guest.uuid),
      sizesBytes,
      counterOffsetBytes: COUNTER_OFFSET_BYTES,
      write: (diskIndex, offsetBytes, bytes) => guest.write(diskIndex, offsetBytes, bytes),
      start: () => guest.start(),
      stop: () => guest.stop(),
      progress: () => guest.progress(),
      laterLife: open,
      [Symbol.asyncDispose]: () => libvirt.stopGuests(),
    }
  }
  hypervisorConformance('libvirt', subject)

  const makeGuest = (format: 'raw' | 'qcow2', sizesBytes: readonly number[] = [MiB, 8 * MiB]) =>
    libvirt.define({
      name: `guest${++guests}`,
      disks: sizesBytes.map((sizeBytes) => ({ sizeBytes, format })),
    })

  /** A copy that is kept as a replica is: from what the tracker says alone, once it has been read whole. */
  class Follower {
    readonly images = new Map<string, Buffer>()
    readonly kinds: string[][] = []
    readonly hypervisor: HostHypervisor
    readonly guest: TestGuest
    #seq = 0

    constructor(guest: TestGuest, hypervisor = open()) {
      this.guest = guest
      this.hypervisor = hypervisor
    }

    /** One copy cycle; the point is told to be at the target unless `isLost`. */
    async cycle({ isLost = false } = {}): Promise<void> {
      const vm = fabricVmId.parse(this.guest.uuid)
      const snapshot = await this.hypervisor.openSnapshot({
        fabricVmId: vm,
        hold: 'brief',
        seq: this.#seq + 1,
      })
      let wholes: Buffer[]
      try {
        wholes = snapshot.disks.map(wholeOf)
        this.kinds.push(snapshot.disks.map(({ changes }) => changes.kind))
        if (!isLost)
          for (const [i, disk] of snapshot.disks.entries()) this.#follow(disk, wholes[i] ?? Buffer.alloc(0))
      } finally {
        expect(snapshot.close()).toEqual({ intact: true })
      }
      if (isLost) return
      this.#seq++
      await this.hypervisor.release(vm, this.#seq)
      for (const [i, { diskId }] of snapshot.disks.entries())
        expect(this.images.get(diskId)?.equals(wholes[i] ?? Buffer.alloc(0)), `disk ${diskId}`).toBe(true)
      const [n0 = 0, n1 = 0] = wholes.map((whole) => whole.readUInt32LE(COUNTER_OFFSET_BYTES))
      expect(n0 === n1 || n0 === n1 + 1, `${n0} and ${n1}`).toBe(true)
    }

    #follow(disk: Snapshot['disks'][number], whole: Buffer): void {
      if (disk.changes.kind === 'scan') {
        this.images.set(disk.diskId, Buffer.from(whole))
        return
      }
      const image = Buffer.alloc(disk.sizeBytes)
      this.images.get(disk.diskId)?.copy(image)
      for (const { offsetBytes, lengthBytes } of disk.changes.extents)
        disk.read(image.subarray(offsetBytes, offsetBytes + lengthBytes), offsetBytes)
      this.images.set(disk.diskId, image)
    }
  }

  const scratchFiles = () => readdirSync(join(libvirt.dir, 'scratch'))
  const ownCheckpoints = async ({ uuid }: TestGuest) =>
    (await libvirt.virsh('checkpoint-list', uuid, '--name')).split('\n').filter(Boolean)

  it('in 20 cycles of a guest that writes, what the tracker says makes every point; one checkpoint is left', async () => {
    const guest = await makeGuest('qcow2')
    await guest.start()
    const follower = new Follower(guest)
    for (let cycle = 0; cycle < 20; cycle++) {
      await follower.cycle()
      if (cycle % 5 === 0) await guest.progress()
    }
    expect(follower.kinds).toEqual([['scan', 'scan'], ...Array(19).fill(['tracked', 'tracked'])])
    expect(await ownCheckpoints(guest)).toHaveLength(1)
    expect(scratchFiles()).toEqual([])
  })

  it('a cycle that comes to nothing takes nothing from the next one, in this life and in a later one', async () => {
    const guest = await makeGuest('qcow2')
    await guest.start()
    const follower = new Follower(guest)
    await follower.cycle()
    await guest.progress()
    await follower.cycle({ isLost: true })
    await guest.progress()
    await follower.cycle({ isLost: true })
    await follower.cycle()
    await guest.progress()
    await follower.cycle({ isLost: true })
    await open().recover()
    expect((await ownCheckpoints(guest)).length).toBe(2)
    await guest.progress()
    await follower.cycle()
    expect(follower.kinds.slice(1).flat()).not.toContain('scan')
  })

  it('QEMU that was killed: its disks are compared once, and tracked again from then on', async () => {
    const guest = await makeGuest('qcow2')
    await guest.start()
    const follower = new Follower(guest)
    await follower.cycle()
    await follower.cycle()
    await guest.killQemu()
    await guest.start()
    await follower.cycle()
    await follower.cycle()
    await guest.progress()
    await follower.cycle()
    expect(follower.kinds.map(([kind]) => kind)).toEqual(['scan', 'tracked', 'scan', 'tracked', 'tracked'])
  })

  it('a VM that is shut down is read where it lies, by what was tracked before', async () => {
    const guest = await makeGuest('qcow2')
    await guest.start()
    const follower = new Follower(guest)
    await follower.cycle()
    await guest.progress()
    await guest.quit()
    await follower.cycle()
    guest.write(1, 3 * MiB, Buffer.alloc(100_000, 'off'))
    await follower.cycle()
    expect(follower.images.get('vdb')?.toString('latin1', 3 * MiB, 3 * MiB + 6)).toBe('offoff')
    await guest.start()
    await follower.cycle()
    expect(follower.kinds.flat().slice(2)).not.toContain('scan')
  })

  it('a VM that is shut down after a cycle that came to nothing: nothing that was written before that is missed', async () => {
    const guest = await makeGuest('qcow2')
    await guest.start()
    const follower = new Follower(guest)
    await follower.cycle()
    await guest.progress()
    await follower.cycle({ isLost: true })
    await guest.progress()
    expect(await ownCheckpoints(guest)).toHaveLength(2)
    await guest.quit()
    // Where no earlier bitmap knows of a write.
    guest.write(1, 3 * MiB, Buffer.alloc(65_536, 'late'))
    await follower.cycle()
    expect(follower.kinds.at(-1)).toEqual(['scan', 'scan'])
  })

  it('a disk that is added while the guest runs is compared; the others go on being tracked', async () => {
    const guest = await makeGuest('qcow2')
    await guest.start()
    const follower = new Follower(guest)
    await follower.cycle()
    const added = join(libvirt.dir, 'images', 'added.qcow2')
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', added, '2M'])
    libvirt.giveAway()
    await libvirt.virsh(
      'attach-disk',
      guest.uuid,
      added,
      'vdc',
      '--subdriver',
      'qcow2',
      '--persistent',
      '--live',
    )
    await follower.cycle()
    await guest.progress()
    await follower.cycle()
    expect(follower.kinds).toEqual([
      ['scan', 'scan'],
      ['tracked', 'tracked', 'scan'],
      ['tracked', 'tracked', 'tracked'],
    ])
  })

  it.each(['raw', 'qcow2'] as const)(
    'the disks of a VM that is off, %s, are shown for adopting; of one that runs they are not',
    async (format) => {
      const guest = await makeGuest(format)
      const files = openLibvirtFiles({
        virsh: openVirsh({ uri: libvirt.uri, timeoutMs: 60_000 }),
        scratchDir: join(libvirt.dir, 'scratch'),
        clock: systemClock,
      })
      const vm = fabricVmId.parse(guest.uuid)
      guest.write(1, 4 * MiB, Buffer.alloc(70_000, 'adopted'))
      using fixture = new StoreFixture()
      {
        using stopped = await files.stoppedDisks(vm)
        fixture.store.adopt({
          vmId: testVm,
          epoch: 1,
          sourceServerId: testServer,
          policy: defaultPolicy,
          disks: stopped.disks,
        })
      }
      expect(scratchFiles()).toEqual([])
      const layer = join(fixture.dir, 'replicas', testVm, 'vdb', '1-000000000000.qcow2')
      execFileSync('qemu-img', ['compare', '-f', 'qcow2', '-F', format, layer, guest.disks[1]?.path ?? ''])
      expect(await files.anyVmNames([guest.disks[1]?.path ?? ''])).toBe(true)
      expect(await files.anyVmNames([layer])).toBe(false)
      await guest.start()
      await expect(files.stoppedDisks(vm)).rejects.toMatchObject({ code: 'vm-running' })
      await guest.stop()
    },
  )

  it('raw disks have no tracker: they are compared each time', async () => {
    const guest = await makeGuest('raw')
    await guest.start()
    const follower = new Follower(guest)
    await follower.cycle()
    await follower.cycle()
    expect(follower.kinds.flat()).toEqual(['scan', 'scan', 'scan', 'scan'])
    expect(await ownCheckpoints(guest)).toEqual([])
  })

  it('libvirtd that dies with a snapshot open: the guest runs on, the snapshot is read to its end, cycles go on', async () => {
    const guest = await makeGuest('qcow2')
    await guest.start()
    const follower = new Follower(guest)
    await follower.cycle()
    const vm = fabricVmId.parse(guest.uuid)
    const snapshot = await follower.hypervisor.openSnapshot({ fabricVmId: vm, hold: 'brief', seq: 2 })
    await libvirt.killDaemon()
    await guest.progress()
    wholeOf(snapshot.disks[1])
    expect(snapshot.close()).toEqual({ intact: false })
    await expect(follower.cycle()).rejects.toMatchObject({ code: 'libvirt-unreachable' })
    await guest.progress()
    await libvirt.startDaemon()
    await follower.cycle()
    await follower.cycle()
    expect(follower.kinds.map(([kind]) => kind)).toEqual(['scan', 'tracked', 'tracked'])
  })

  it.each(['running', 'off'])('a VM that is no longer replicated is left as it was, %s', async (power) => {
    const guest = await makeGuest('qcow2')
    const definition = await libvirt.virsh('dumpxml', guest.uuid)
    await guest.start()
    const follower = new Follower(guest)
    await follower.cycle()
    await follower.cycle()
    await follower.cycle({ isLost: true })
    expect(await ownCheckpoints(guest)).not.toEqual([])
    if (power === 'off') await guest.quit()
    await follower.hypervisor.forget?.(fabricVmId.parse(guest.uuid))
    if (power === 'running') await guest.quit()
    expect(await ownCheckpoints(guest)).toEqual([])
    expect(await libvirt.virsh('dumpxml', guest.uuid)).toBe(definition)
    expect(scratchFiles()).toEqual([])
    for (const { path } of guest.disks) {
      const info = JSON.parse(execFileSync('qemu-img', ['info', '--output=json', path], { encoding: 'utf8' }))
      expect(info['format-specific'].data.bitmaps ?? []).toEqual([])
    }
  })

  it('an agent that starts closes what an earlier life left, and leaves the jobs of others alone', async () => {
    const guest = await makeGuest('qcow2')
    await guest.start()
    const vm = fabricVmId.parse(guest.uuid)
    await open().openSnapshot({ fabricVmId: vm, hold: 'long', seq: 1 })
    expect(scratchFiles().length).toBeGreaterThan(0)
    const later = open()
    await later.recover()
    expect(scratchFiles()).toEqual([])
    const push = join(libvirt.dir, 'push.xml')
    const target = (disk: string) => join(libvirt.dir, 'images', `${disk}.backup`)
    const disks = ['vda', 'vdb'].map(
      (disk) =>
        `<disk name='${disk}' type='file'><target file='${target(disk)}'/><driver type='qcow2'/></disk>`,
    )
    writeFileSync(
      push,
      `<domainbackup mode='pull'><server transport='unix' socket='${join(libvirt.dir, 'others.sock')}'/><disks>${disks.join('').replaceAll('target', 'scratch')}</disks></domainbackup>`,
    )
    await libvirt.virsh('backup-begin', guest.uuid, push)
    await open().recover()
    await expect(later.openSnapshot({ fabricVmId: vm, hold: 'brief', seq: 1 })).rejects.toMatchObject({
      code: 'snapshot-busy',
    })
    await libvirt.virsh('domjobabort', guest.uuid)
    const snapshot = await later.openSnapshot({ fabricVmId: vm, hold: 'brief', seq: 1 })
    expect(snapshot.close()).toEqual({ intact: true })
  })
})

function wholeOf(disk: Snapshot['disks'][number] | undefined): Buffer {
  const whole = Buffer.alloc(disk?.sizeBytes ?? 0)
  disk?.read(whole, 0)
  return whole
}
