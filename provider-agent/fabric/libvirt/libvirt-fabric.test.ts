import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { systemClock } from '#shared/clock.ts'
import { diskId, fabricVmId } from '#shared/ids.ts'
import { silentLog } from '#shared/log.ts'
import { domainXml, hasLibvirt, TestLibvirt } from '#shared/testing/libvirt/test-libvirt.ts'
import { type FabricSubject, fabricConformance, type GuestKind } from '../conformance.ts'
import type { LibvirtFabricConfig } from './config.ts'
import { openLibvirtFabric } from './libvirt-fabric.ts'
import { isPng } from './png.ts'

const MiB = 2 ** 20
/** An emulated guest boots in five seconds, and in a minute on a machine that is busy. */
const PATIENCE_MS = 150_000

const roles: Record<Exclude<GuestKind, 'crashing'>, string> = {
  healthy: 'counter',
  silent: 'silent',
  stubborn: 'stubborn',
}

describe.skipIf(!hasLibvirt())('with real guests', () => {
  let libvirt: TestLibvirt
  beforeAll(async () => {
    libvirt = await TestLibvirt.start()
    await libvirt.virsh('pool-create-as', 'images', 'dir', '--target', join(libvirt.dir, 'images'))
    const island = join(libvirt.dir, 'island.xml')
    writeFileSync(island, "<network><name>island</name><bridge name='hsisland0'/></network>")
    await libvirt.virsh('net-define', island)
  })
  afterAll(() => libvirt[Symbol.asyncDispose]())

  const config = (): LibvirtFabricConfig => ({
    driver: 'libvirt',
    vmmServer: 'kvm-manager',
    clouds: [
      {
        name: 'gold',
        hosts: [
          {
            name: 'host1',
            uri: libvirt.uri,
            networks: [{ name: 'lan', multicast: { address: '230.0.0.1', port: 5558 } }],
          },
        ],
      },
    ],
  })
  const open = () => openLibvirtFabric({ config: config(), clock: systemClock, log: silentLog })

  const imageOf = (id: string) => {
    const path = join(libvirt.dir, 'images', `${id}.qcow2`)
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(8 * MiB)])
    libvirt.giveAway()
    return path
  }
  const source = (role: string, disks: readonly { path: string; format: string }[] = []) =>
    domainXml({ name: 'orders', disks, role, guestDir: libvirt.guestDir, nic: "<interface type='user'/>" })

  const subject = async (): Promise<FabricSubject> => ({
    fabric: open(),
    host: 'host1',
    cloud: 'gold',
    network: 'lan',
    unreachableNetwork: 'island',
    guest: (kind) => ({
      domainXml:
        kind === 'crashing'
          ? source('counter').replace(/<initrd>.*<\/initrd>/, '<initrd>/nonexistent/no boot device</initrd>')
          : source(roles[kind]),
    }),
    disk: (id) => ({ diskId: diskId.parse(id), path: imageOf(id), format: 'qcow2', sizeBytes: 8 * MiB }),
    patienceMs: PATIENCE_MS,
    reopen: open,
    async [Symbol.asyncDispose]() {
      await libvirt.stopGuests()
      const names = (await libvirt.virsh('list', '--all', '--name')).split('\n').filter(Boolean)
      for (const name of names) await libvirt.virsh('undefine', name, '--checkpoints-metadata')
    },
  })
  fabricConformance('libvirt', subject)

  describe('VMs that somebody else defined', () => {
    afterEach(async () => {
      await libvirt.stopGuests()
      await libvirt.virsh('undefine', 'orders').catch(() => {})
    })
    const define = async () => {
      const guest = await libvirt.define({ name: 'orders', disks: [{ sizeBytes: 8 * MiB, format: 'qcow2' }] })
      return { guest, id: fabricVmId.parse(guest.uuid) }
    }

    test('are in the inventory, with disks, sizes and what makes a replica of them', async () => {
      const { id } = await define()
      const vm = (await open().inventory()).vms.find(({ fabricVmId: each }) => each === id)
      expect(vm).toMatchObject({
        name: 'orders',
        host: 'host1',
        cloud: 'gold',
        generation: 1,
        memoryBytes: 128 * MiB,
        cpuCount: 1,
        disks: [{ diskId: 'vda', name: 'vda', sizeBytes: 8 * MiB, boot: true }],
        classification: 'images',
        observation: { power: 'off', fenced: false },
      })
      expect(vm?.driverSettings['domainXml']).toContain('<domain')
    })

    test('I5: are fenced so that QEMU itself refuses, whoever starts them, and are as before when it is lifted', async () => {
      const { id } = await define()
      const before = await libvirt.virsh('dumpxml', 'orders')
      await open().fence(id, 7, 'runs at the other site')
      await expect(libvirt.virsh('start', 'orders')).rejects.toThrow(/fenced by Hotsite at epoch 7/)
      await open().unfence(id)
      expect(await libvirt.virsh('dumpxml', 'orders')).toBe(before)
    })

    test('a name that is taken on the other host: the replica gets one of its own', async () => {
      const { id } = await define()
      const fabric = open()
      const vm = (await fabric.inventory()).vms.find(({ fabricVmId: each }) => each === id)
      if (!vm) throw new Error('the VM is not in the inventory')
      const { cloud: _cloud, observation: _observation, ...description } = vm
      const replica = fabricVmId.parse('replica-1')
      const nics = vm.nics.map(({ name }) => ({ name, network: null }))
      await fabric.define({
        fabricVmId: replica,
        name: 'orders',
        host: 'host1',
        description,
        disks: [],
        nics,
      })
      const names = (await fabric.inventory()).vms.map(({ name }) => name)
      expect(names).toContain('orders')
      expect(names.find((name) => name.startsWith('orders-'))).toBeDefined()
      await fabric.remove(replica)
      expect((await fabric.observe(id)).exists).toBe(true)
    })

    test('a display is shown as PNG; a VM without one, or off, has none', async () => {
      const { guest, id } = await define()
      const fabric = open()
      await libvirt.virsh('start', 'orders')
      expect(await fabric.screenshot(id)).toBeNull()
      await guest.stop()
      const xml = join(libvirt.dir, 'display.xml')
      const plain = await libvirt.virsh('dumpxml', '--inactive', 'orders')
      writeFileSync(xml, plain.replace('</devices>', "<video><model type='vga'/></video></devices>"))
      await libvirt.virsh('define', xml)
      expect(await fabric.screenshot(id)).toBeNull()
      await libvirt.virsh('start', 'orders')
      const picture = await fabric.screenshot(id)
      expect(picture && isPng(picture)).toBe(true)
    })

    test('libvirtd that is gone is no VM that is gone', async () => {
      const { id } = await define()
      const fabric = open()
      await fabric.inventory()
      await libvirt.killDaemon()
      await expect(fabric.observe(id)).rejects.toMatchObject({ code: 'libvirt-unreachable' })
      await expect(fabric.inventory()).rejects.toMatchObject({ code: 'libvirt-unreachable' })
      await libvirt.startDaemon()
      expect((await fabric.observe(id)).exists).toBe(true)
    })
  })
})
