import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { diskId, fabricVmId } from '#shared/ids.ts'
import { domainUuid } from '#shared/libvirt/domain-uuid.ts'
import { readMetadata } from '#shared/libvirt/metadata.ts'
import { child, children, parseXml } from '#shared/libvirt/xml.ts'
import type { CommandRequest } from '#shared/messages/commands.ts'
import { hasTool } from '#shared/testing/tools.ts'
import { defineDomain, setFence } from './define-domain.ts'
import type { HostNetworks } from './networks.ts'

const SOURCE_UUID = '4dea22b3-1d52-d8f3-2516-782e98ab3fa0'

/** With everything that ties a VM to its host. */
const source = `<domain type='kvm' id='7'>
  <name>orders</name>
  <uuid>${SOURCE_UUID}</uuid>
  <genid>43dc0cf8-809b-4adb-9bea-a9abb5f3d90e</genid>
  <title>Orders</title>
  <metadata><app:note xmlns:app="https://example.org/app">kept</app:note></metadata>
  <memory unit='KiB'>2097152</memory>
  <currentMemory unit='KiB'>1048576</currentMemory>
  <vcpu placement='static' cpuset='0-3'>2</vcpu>
  <cputune><shares>2048</shares><vcpupin vcpu='0' cpuset='1'/><emulatorpin cpuset='2'/></cputune>
  <numatune><memory mode='strict' nodeset='0'/></numatune>
  <resource><partition>/machine/gold</partition></resource>
  <sysinfo type='smbios'><system><entry name='uuid'>${SOURCE_UUID}</entry></system></sysinfo>
  <os firmware='efi'><type arch='x86_64' machine='pc-q35-7.2'>hvm</type>
    <nvram>/var/lib/libvirt/qemu/nvram/orders_VARS.fd</nvram><boot dev='cdrom'/></os>
  <features><acpi/></features>
  <clock offset='utc'/>
  <devices>
    <emulator>/opt/qemu/bin/qemu-system-x86_64</emulator>
    <disk type='block' device='disk'><driver name='qemu' type='raw' cache='none' io='native' discard='unmap'/>
      <source dev='/dev/vg0/orders' index='1'/><backingStore/><target dev='sda' bus='scsi'/><serial>WD-1</serial></disk>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/srv/data.qcow2'/><target dev='sdb' bus='scsi'/></disk>
    <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/srv/quorum.img'/><target dev='sdc' bus='scsi'/><shareable/></disk>
    <disk type='file' device='cdrom'><source file='/iso/debian.iso'/><target dev='sdd' bus='sata'/><readonly/></disk>
    <controller type='scsi' index='0' model='virtio-scsi'/>
    <interface type='bridge'><mac address='52:54:00:11:22:33'/><source bridge='br0'/><virtualport type='openvswitch'/>
      <target dev='vnet3'/><model type='e1000'/></interface>
    <interface type='network'><mac address='52:54:00:44:55:66'/><source network='backup'/><model type='virtio'/></interface>
    <serial type='file'><source path='/var/log/orders.log'/><target port='0'/></serial>
    <channel type='unix'><source mode='bind' path='/run/orders.agent'/><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <graphics type='vnc' port='5903' autoport='no' listen='10.0.0.7'><listen type='address' address='10.0.0.7'/></graphics>
    <hostdev mode='subsystem' type='pci'><source><address domain='0x0000' bus='0x06' slot='0x12' function='0x5'/></source></hostdev>
    <filesystem type='mount'><source dir='/export'/><target dir='export'/></filesystem>
  </devices>
  <seclabel type='dynamic' model='apparmor' relabel='yes'><label>libvirt-${SOURCE_UUID}</label></seclabel>
</domain>`

const networks: HostNetworks = {
  active: new Set(['prod-b']),
  configured: [{ name: 'backup-b', bridge: 'br7' }],
}

const disk = (id: string) => ({
  diskId: diskId.parse(id),
  path: `/replicas/${id}.qcow2`,
  format: 'qcow2' as const,
  sizeBytes: 2 ** 30,
})

function request(changes: Partial<CommandRequest<'vm.define'>> = {}): CommandRequest<'vm.define'> {
  const disks = [disk('sda'), disk('sdb')]
  return {
    fabricVmId: fabricVmId.parse('replica-1'),
    name: 'orders',
    host: 'kvm2',
    description: {
      fabricVmId: fabricVmId.parse(SOURCE_UUID),
      name: 'orders',
      host: 'kvm1',
      generation: 2,
      operatingSystem: 'debian 12',
      memoryBytes: 2 ** 31,
      cpuCount: 2,
      disks: disks.map(({ diskId: id, sizeBytes }, i) => ({
        diskId: id,
        name: id,
        sizeBytes,
        boot: i === 0,
      })),
      nics: [],
      classification: null,
      driverSettings: { domainXml: source },
    },
    disks,
    nics: [
      { name: 'eth0', network: 'prod-b' },
      { name: 'eth1', network: 'backup-b' },
    ],
    ...changes,
  }
}

const define = (changes: Partial<CommandRequest<'vm.define'>> = {}) =>
  defineDomain({ request: request(changes), networks })
const devicesOf = (xml: string, name: string) => children(child(parseXml(xml), 'devices'), name)
const macs = (xml: string) =>
  devicesOf(xml, 'interface').map((nic) => child(nic, 'mac')?.getAttribute('address'))

describe('the definition of a replica', () => {
  test('keeps the machine: memory, processors, models, addresses of NICs, what others keep in the metadata', () => {
    const xml = define()
    for (const kept of [
      "machine='pc-q35-7.2'",
      '2097152',
      '<shares>2048</shares>',
      "type='e1000'",
      '<title>Orders</title>',
      'WD-1',
      'https://example.org/app',
      'virtio-scsi',
    ])
      expect(xml.replaceAll('"', "'")).toContain(kept)
    expect(macs(xml)).toEqual(['52:54:00:11:22:33', '52:54:00:44:55:66'])
  })

  test('leaves behind what belongs to the source host or has to be unique', () => {
    const xml = define()
    for (const left of [
      SOURCE_UUID,
      '/opt/qemu',
      '/srv/',
      '/dev/vg0',
      '/iso/',
      '/run/',
      '/var/',
      'br0',
      'openvswitch',
      'vnet3',
      '10.0.0.7',
      '5903',
      'hostdev',
      'filesystem',
      'vcpupin',
      'emulatorpin',
      'cpuset',
      'numatune',
      'partition',
      'seclabel',
      '43dc0cf8',
      "io='native'",
      'quorum',
    ])
      expect(xml.replaceAll('"', "'")).not.toContain(left)
    expect(xml).toContain(`<uuid>${domainUuid(fabricVmId.parse('replica-1'))}</uuid>`)
    expect(devicesOf(xml, 'disk').map((each) => child(each, 'target')?.getAttribute('dev'))).toEqual([
      'sda',
      'sdb',
      'sdd',
    ])
  })

  test('its disks lie where it was told, the first boots; its NICs are on the mapped networks', () => {
    const xml = define()
    const [first, second, cd] = devicesOf(xml, 'disk')
    expect(child(first, 'source')?.getAttribute('file')).toBe('/replicas/sda.qcow2')
    expect(child(first, 'driver')?.getAttribute('type')).toBe('qcow2')
    expect(child(first, 'boot')?.getAttribute('order')).toBe('1')
    expect(child(second, 'boot')).toBeUndefined()
    expect(child(cd, 'source')).toBeUndefined()
    const [prod, backup] = devicesOf(xml, 'interface')
    expect(prod?.getAttribute('type')).toBe('network')
    expect(child(prod, 'source')?.getAttribute('network')).toBe('prod-b')
    expect(backup?.getAttribute('type')).toBe('bridge')
    expect(child(backup, 'source')?.getAttribute('bridge')).toBe('br7')
  })

  test('a test runs beside its source, so its NICs have addresses of their own, always the same', () => {
    const first = macs(define({ purpose: 'test' }))
    expect(first).toEqual(macs(define({ purpose: 'test' })))
    expect(new Set([...first, '52:54:00:11:22:33', '52:54:00:44:55:66']).size).toBe(4)
  })

  test('a NIC on no network has its link down, alone in a multicast group', () => {
    const [nic] = devicesOf(define({ nics: [{ name: 'eth0', network: null }] }), 'interface')
    expect(child(nic, 'link')?.getAttribute('state')).toBe('down')
    expect(nic?.getAttribute('type')).toBe('mcast')
  })

  test('a second move starts from what the first one made: names of disks are carried along', () => {
    const moved = define({ disks: [disk('sda'), { ...disk('system'), diskId: diskId.parse('system') }] })
    const { disks } = readMetadata(parseXml(moved))
    expect(disks.map(({ diskId: id, target }) => [id, target])).toEqual([
      ['sda', 'sda'],
      ['system', 'vda'],
    ])
    const back = request()
    const again = defineDomain({
      request: {
        ...back,
        disks: [disk('system'), disk('sda')],
        description: { ...back.description, driverSettings: { domainXml: moved } },
      },
      networks,
    })
    expect(readMetadata(parseXml(again)).disks.map(({ diskId: id, target }) => [id, target])).toEqual([
      ['system', 'vda'],
      ['sda', 'sda'],
    ])
  })

  test('a VM that comes home keeps what ties it to its host; its disks lie elsewhere', () => {
    const home = parseXml(source.replace(" id='7'", ''))
    const id = fabricVmId.parse(SOURCE_UUID)
    const nics = [
      { name: 'eth0', network: 'br0' },
      { name: 'eth1', network: 'prod-b' },
    ]
    const xml = defineDomain({ request: request({ fabricVmId: id, nics }), networks, home })
    for (const kept of [SOURCE_UUID, 'hostdev', 'vcpupin', '/opt/qemu', 'quorum', 'openvswitch', '10.0.0.7'])
      expect(xml.replaceAll('"', "'")).toContain(kept)
    const [first] = devicesOf(xml, 'disk')
    expect(child(first, 'source')?.getAttribute('file')).toBe('/replicas/sda.qcow2')
    const [, second] = devicesOf(xml, 'interface')
    expect(child(second, 'source')?.getAttribute('network')).toBe('prod-b')
    expect(readMetadata(parseXml(xml)).isHome).toBe(true)
  })

  test('a VM of another kind of fabric is refused', () => {
    const { description } = request()
    expect(() => define({ description: { ...description, driverSettings: { command: ['sh'] } } })).toThrow(
      /not libvirt/,
    )
  })

  test.skipIf(!hasTool('virt-xml-validate'))(
    'is valid by libvirt`s own schema, with and without a fence',
    () => {
      const dir = mkdtempSync(join(tmpdir(), 'hotsite-domain-'))
      try {
        const fence = { epoch: 7, reason: 'it runs at the other site' }
        const all = [define(), define({ nics: [{ name: 'eth0', network: null }] }), define({ disks: [] })]
        all.push(setFence(define(), { ...readMetadata(parseXml(define())), fence }))
        for (const xml of all) {
          const path = join(dir, 'domain.xml')
          writeFileSync(path, xml)
          execFileSync('virsh', ['-c', 'test:///default', 'define', '--validate', path], { stdio: 'pipe' })
        }
      } finally {
        rmSync(dir, { recursive: true })
      }
    },
  )
})

test('I5: metadata that is not understood is an error, never a fence that is not there', () => {
  const fenced = setFence(source, { disks: [], nics: [], fence: { epoch: 2, reason: 'there' } })
  expect(readMetadata(parseXml(fenced)).fence?.epoch).toBe(2)
  for (const broken of [fenced.replace('"epoch":2', '"epoch":"two"'), fenced.replace('{"disks"', '{disks')]) {
    expect(broken).not.toBe(fenced)
    expect(() => readMetadata(parseXml(broken))).toThrow(/not understood/)
  }
})

test('a fence that is lifted leaves the definition of somebody else`s VM as it was', () => {
  const plain = setFence(source, { disks: [], nics: [] })
  const fenced = setFence(plain, { disks: [], nics: [], fence: { epoch: 2, reason: 'there' } })
  expect(fenced).toContain('fenced by Hotsite at epoch 2')
  expect(setFence(fenced, { disks: [], nics: [] })).toBe(plain)
})
