/**
 * The definition of a VM for another host, out of the one it has at its source: machine, processors, memory and devices stay,
 * and what belongs to the source host goes: its paths, passed-through devices, pinning, labels, and everything that has to
 * be unique. https://libvirt.org/formatdomain.html
 */
import { createHash } from 'node:crypto'
import type { Element } from '@xmldom/xmldom'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { isReplicated } from '#shared/libvirt/domain.ts'
import { domainUuid } from '#shared/libvirt/domain-uuid.ts'
import { type DomainMetadata, readMetadata, removeMetadata, writeMetadata } from '#shared/libvirt/metadata.ts'
import {
  append,
  child,
  children,
  descendant,
  parseXml,
  removeChildren,
  xmlText,
} from '#shared/libvirt/xml.ts'
import type { CommandRequest } from '#shared/messages/commands.ts'
import { connect, type HostNetworks, networkOf } from './networks.ts'

type DefineRequest = CommandRequest<'vm.define'>

/** Devices that are a part of the source host, or share something with it. */
const HOST_DEVICES = ['hostdev', 'filesystem', 'shmem', 'lease', 'emulator']
/** Settings that name processors, memory nodes or groups of the source host. */
const HOST_SETTINGS = ['numatune', 'resource', 'seclabel', 'currentMemory']
/** Character devices that end in a file, a socket or a device of the source host. */
const HOST_CHARACTER_TYPES = new Set(['file', 'unix', 'pipe', 'dev', 'tcp', 'udp', 'spiceport', 'nmdm'])

export interface Definition {
  readonly request: DefineRequest
  readonly networks: HostNetworks
  /** The definition that somebody else gave it on this very host: the VM comes home, and nothing in it is foreign. */
  readonly home?: Element
  /** What is kept of an earlier definition. */
  readonly fence?: DomainMetadata['fence']
}

export function requestHash(request: DefineRequest): string {
  return createHash('sha256').update(JSON.stringify(request)).digest('hex')
}

/** Throws `request-invalid` for a VM of another kind of fabric. */
export function defineDomain({ request, networks, home, fence }: Definition): string {
  const { description, fabricVmId } = request
  const domain = home ? parseXml(xmlText(home)) : foreignDomain(request)
  const devices = child(domain, 'devices') ?? append(domain, 'devices')
  const disks = placeDisks(devices, request)
  placeNics(devices, request, { networks, isHome: home !== undefined })
  if (!home && disks.some(({ boot }) => boot)) bootFrom(domain, devices, disks)
  const metadata: DomainMetadata = {
    fabricVmId,
    generation: description.generation,
    operatingSystem: description.operatingSystem,
    classification: description.classification,
    disks,
    nics: request.nics,
    requestHash: requestHash(request),
    ...(home ? { isHome: true } : {}),
    ...(fence ? { fence } : {}),
  }
  writeMetadata(domain, metadata)
  return setFence(xmlText(domain), metadata)
}

/** From the source's definition, without what belongs to its host. */
function foreignDomain({ description, fabricVmId, name }: DefineRequest): Element {
  const source = description.driverSettings['domainXml']
  if (typeof source !== 'string')
    throw new HotsiteError(
      'request-invalid',
      `VM ${name} comes from a fabric that is not libvirt, so there is no definition to make one here from`,
    )
  const domain = parseXml(source)
  domain.removeAttribute('id')
  setText(domain, 'name', name)
  setText(domain, 'uuid', domainUuid(fabricVmId))
  removeChildren(domain, ...HOST_SETTINGS)
  forgetHost(domain, fabricVmId)
  const devices = child(domain, 'devices') ?? append(domain, 'devices')
  removeChildren(devices, ...HOST_DEVICES)
  detachMedia(devices)
  detachCharacterDevices(devices)
  detachGraphics(devices)
  return domain
}

function setText(domain: Element, name: string, text: string): void {
  const element = child(domain, name) ?? append(domain, name)
  element.textContent = text
}

function forgetHost(domain: Element, fabricVmId: DefineRequest['fabricVmId']): void {
  const tuning = child(domain, 'cputune')
  if (tuning)
    removeChildren(tuning, 'vcpupin', 'emulatorpin', 'iothreadpin', 'vcpusched', 'cachetune', 'memorytune')
  const vcpu = child(domain, 'vcpu')
  vcpu?.removeAttribute('cpuset')
  // A guest that is an older state of itself has to know it: Windows domain controllers do by this number.
  const genid = child(domain, 'genid')
  if (genid) genid.textContent = ''
  // Made anew from its template: its path is the source's.
  const os = child(domain, 'os')
  const nvram = child(os, 'nvram')
  if (os && nvram) {
    const template = nvram.getAttribute('template')
    removeChildren(os, 'nvram')
    if (template) append(os, 'nvram', { template })
  }
  for (const sysinfo of children(domain, 'sysinfo'))
    for (const entry of children(child(sysinfo, 'system'), 'entry'))
      if (entry.getAttribute('name') === 'uuid') entry.textContent = domainUuid(fabricVmId)
}

/** Drives without what lies in them, which the other host does not have; and no disks that are not replicated. */
function detachMedia(devices: Element): void {
  for (const disk of children(devices, 'disk')) {
    const device = disk.getAttribute('device') ?? 'disk'
    if (device === 'cdrom' || device === 'floppy') removeChildren(disk, 'source', 'backingStore')
    else if (!isReplicated(disk)) devices.removeChild(disk)
  }
}

function detachCharacterDevices(devices: Element): void {
  for (const name of ['serial', 'parallel', 'console', 'channel'])
    for (const device of children(devices, name)) {
      removeChildren(device, 'log', 'alias')
      const type = device.getAttribute('type') ?? ''
      // A channel has its socket where libvirt on the other host puts it.
      if (name === 'channel' && type === 'unix') removeChildren(device, 'source')
      else if (HOST_CHARACTER_TYPES.has(type)) {
        device.setAttribute('type', 'pty')
        removeChildren(device, 'source', 'protocol')
      } else if (type === 'pty') removeChildren(device, 'source')
    }
}

function detachGraphics(devices: Element): void {
  for (const graphics of children(devices, 'graphics')) {
    graphics.setAttribute('autoport', 'yes')
    for (const attribute of ['port', 'tlsPort', 'websocket', 'listen', 'socket'])
      graphics.removeAttribute(attribute)
    removeChildren(graphics, 'listen')
  }
}

function placeDisks(devices: Element, { disks, description }: DefineRequest): DomainMetadata['disks'] {
  const known = readMetadataOfDisks(devices)
  const present = new Map(
    children(devices, 'disk')
      .filter(isReplicated)
      .map((disk) => [child(disk, 'target')?.getAttribute('dev') ?? '', disk]),
  )
  const taken = new Set(
    children(devices, 'disk').map((disk) => child(disk, 'target')?.getAttribute('dev') ?? ''),
  )
  const placed = disks.map((disk) => {
    const described = description.disks.find(({ diskId }) => diskId === disk.diskId)
    const wanted = known.get(disk.diskId) ?? disk.diskId
    let element = present.get(wanted)
    if (element) present.delete(wanted)
    else {
      element = append(devices, 'disk', { type: 'file', device: 'disk' })
      append(element, 'target', { dev: freeTarget(taken), bus: 'virtio' })
    }
    pointTo(element, disk)
    const target = child(element, 'target')?.getAttribute('dev') ?? ''
    taken.add(target)
    return {
      diskId: disk.diskId,
      name: described?.name ?? disk.diskId,
      target,
      boot: described?.boot ?? false,
    }
  })
  for (const left of present.values()) devices.removeChild(left)
  return placed
}

/** Target names by disk id, where the source is a domain that we defined. */
function readMetadataOfDisks(devices: Element): ReadonlyMap<string, string> {
  const domain = devices.parentNode as Element
  return new Map(readMetadata(domain).disks.map(({ diskId, target }) => [diskId, target]))
}

function freeTarget(taken: ReadonlySet<string>): string {
  for (let i = 0; ; i++) {
    // vda … vdz, vdaa …, as libvirt counts.
    const letters = i < 26 ? letter(i) : letter(Math.floor(i / 26) - 1) + letter(i % 26)
    if (!taken.has(`vd${letters}`)) return `vd${letters}`
  }
}

const letter = (index: number) => String.fromCharCode(97 + index)

function pointTo(element: Element, { path, format }: DefineRequest['disks'][number]): void {
  element.setAttribute('type', 'file')
  removeChildren(element, 'source', 'backingStore', 'mirror', 'auth', 'encryption', 'alias', 'boot')
  const driver = child(element, 'driver') ?? append(element, 'driver', { name: 'qemu' })
  driver.setAttribute('type', format)
  // They demand a file system that the other host need not have.
  for (const attribute of ['io', 'cache', 'iothread', 'queues']) driver.removeAttribute(attribute)
  append(element, 'source', { file: path })
}

function placeNics(
  devices: Element,
  { nics, fabricVmId, purpose }: DefineRequest,
  { networks, isHome }: { readonly networks: HostNetworks; readonly isHome: boolean },
): void {
  const present = children(devices, 'interface')
  for (const [i, { network }] of nics.entries()) {
    let nic = present[i]
    if (!nic) {
      nic = append(devices, 'interface')
      append(nic, 'model', { type: 'virtio' })
    }
    // With whatever its port there has beside the network.
    if (isHome && networkOf(nic, networks) === network) continue
    removeChildren(nic, 'alias', 'boot')
    // A test runs beside its source: on a network that both reach they must not be taken for each other.
    if (purpose === 'test' || !child(nic, 'mac')) {
      const mac = child(nic, 'mac') ?? append(nic, 'mac')
      mac.setAttribute('address', macOf(`${fabricVmId}/${i}`))
    }
    connect(nic, network, networks)
  }
  for (const nic of present.slice(nics.length)) devices.removeChild(nic)
}

/** In the range that QEMU has for itself, always the same. */
function macOf(text: string): string {
  const digest = createHash('sha256').update(text).digest('hex')
  return `52:54:00:${digest.slice(0, 2)}:${digest.slice(2, 4)}:${digest.slice(4, 6)}`
}

/** Orders of devices are unique in a domain, so all go but those we set. */
function bootFrom(domain: Element, devices: Element, disks: DomainMetadata['disks']): void {
  const os = child(domain, 'os')
  if (os) removeChildren(os, 'boot')
  for (const device of children(devices)) removeChildren(device, 'boot')
  const boot = disks.filter((disk) => disk.boot)
  for (const disk of children(devices, 'disk')) {
    const target = child(disk, 'target')?.getAttribute('dev')
    const order = boot.findIndex((each) => each.target === target)
    if (order >= 0) append(disk, 'boot', { order: String(order + 1) })
  }
}

const FENCE_ENTRY = 'opt/org.hotsite/fence'

/**
 * With a fence, QEMU refuses to start the VM, whoever asks: it is given a firmware file that is not there, whose name says
 * why. Without one everything of it is taken away (https://libvirt.org/formatdomain.html#smbios-system-information).
 */
export function setFence(xml: string, metadata: DomainMetadata): string {
  const domain = parseXml(xml)
  for (const sysinfo of children(domain, 'sysinfo')) {
    if (sysinfo.getAttribute('type') !== 'fwcfg') continue
    for (const entry of children(sysinfo, 'entry'))
      if (entry.getAttribute('name') === FENCE_ENTRY) sysinfo.removeChild(entry)
    if (children(sysinfo).length === 0) domain.removeChild(sysinfo)
  }
  if (metadata.fence) {
    const present = children(domain, 'sysinfo').find((sysinfo) => sysinfo.getAttribute('type') === 'fwcfg')
    const sysinfo = present ?? append(domain, 'sysinfo', { type: 'fwcfg' })
    const file = `/nonexistent/fenced by Hotsite at epoch ${metadata.fence.epoch}: this VM runs at the other site`
    append(sysinfo, 'entry', { name: FENCE_ENTRY, file })
  }
  // A VM that somebody else defined is left as it was.
  if (metadata.fabricVmId === undefined && !metadata.fence) removeMetadata(domain)
  else writeMetadata(domain, metadata)
  return xmlText(domain)
}

/** Whether the guest starts from UEFI, as generation 2 does. */
export function generationOf(domain: Element): 1 | 2 {
  const os = child(domain, 'os')
  const isUefi =
    os?.getAttribute('firmware') === 'efi' || child(os, 'loader')?.getAttribute('type') === 'pflash'
  return isUefi ? 2 : 1
}

/** As tools that use libosinfo write it down: `http://debian.org/debian/12` is `debian 12`. */
export function operatingSystemOf(domain: Element): string {
  const id = descendant(domain, 'metadata', 'libosinfo:libosinfo', 'libosinfo:os')?.getAttribute('id') ?? ''
  return id.split('/').slice(-2).join(' ')
}
