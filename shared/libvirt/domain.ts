/** What we have to know of a domain, out of its definition (https://libvirt.org/formatdomain.html). */
import type { Element } from '@xmldom/xmldom'
import { type DiskId, diskId } from '../ids.ts'
import { type DomainMetadata, readMetadata } from './metadata.ts'
import { child, children, parseXml, textOf } from './xml.ts'

export interface DomainDisk {
  /** As its VM's protection calls it: what we wrote down when we defined it, else `target`. */
  readonly diskId: DiskId
  /** The name libvirt gives it in the domain, like `vda`. */
  readonly target: string
  /** File or block device; null: it lies elsewhere, and is read through QEMU only. */
  readonly path: string | null
  readonly format: string
  /** Among all devices, from 1; null: it has none of its own. */
  readonly bootOrder: number | null
}

export interface Domain {
  readonly uuid: string
  readonly name: string
  /** QEMU lives, whatever the guest does. */
  readonly isLive: boolean
  /** As whom its QEMU runs; undefined: as whom libvirtd runs. */
  readonly owner: { readonly uid: number; readonly gid: number } | undefined
  /** Its guest agent holds its end of the channel open. */
  readonly hasAgent: boolean
  /** Those that are replicated, in the order of the definition. */
  readonly disks: readonly DomainDisk[]
  /** Names of the others: a CD, a floppy, what cannot be written or what several domains write. */
  readonly others: readonly string[]
}

/** Throws `libvirt-failed` for what is no definition. */
export function parseDomain(xml: string): Domain {
  const domain = parseXml(xml)
  const uuid = textOf(child(domain, 'uuid'))
  const name = textOf(child(domain, 'name'))
  const metadata = readMetadata(domain)
  const all = children(child(domain, 'devices'), 'disk')
  const disks = all.filter(isReplicated).flatMap((disk) => diskOf(disk, metadata))
  const others = all
    .filter((disk) => !isReplicated(disk))
    .flatMap((disk) => child(disk, 'target')?.getAttribute('dev') ?? [])
  // Only a domain that lives has an id.
  const isLive = domain.hasAttribute('id')
  return { uuid, name, isLive, owner: ownerOf(domain), hasAgent: hasAgent(domain), disks, others }
}

/** Not a CD, a floppy, what cannot be written or what several domains write. */
export function isReplicated(disk: Element): boolean {
  const device = disk.getAttribute('device') ?? 'disk'
  return device === 'disk' && ['readonly', 'shareable', 'transient'].every((name) => !child(disk, name))
}

function diskOf(disk: Element, metadata: DomainMetadata): DomainDisk[] {
  const target = child(disk, 'target')?.getAttribute('dev') ?? ''
  const id = diskId.safeParse(metadata.disks.find((known) => known.target === target)?.diskId ?? target)
  if (!id.success) return []
  const source = child(disk, 'source')
  const path = source?.getAttribute('file') ?? source?.getAttribute('dev') ?? null
  const format = child(disk, 'driver')?.getAttribute('type') ?? 'raw'
  const order = child(disk, 'boot')?.getAttribute('order')
  return [{ diskId: id.data, target, path, format, bootOrder: order ? Number(order) : null }]
}

/** libvirt writes it down as `+64055:+64055` (https://libvirt.org/formatdomain.html#security-label). */
function ownerOf(domain: Element): Domain['owner'] {
  const label = children(domain, 'seclabel').find((each) => each.getAttribute('model') === 'dac')
  const [, uid, gid] = /^\+(\d+):\+(\d+)$/.exec(textOf(child(label, 'label'))) ?? []
  return uid === undefined || gid === undefined ? undefined : { uid: Number(uid), gid: Number(gid) }
}

/** Said of a domain that lives only. */
export function hasAgent(domain: Element): boolean {
  return children(child(domain, 'devices'), 'channel').some((channel) => {
    const target = child(channel, 'target')
    return (
      target?.getAttribute('name') === 'org.qemu.guest_agent.0' &&
      target.getAttribute('state') === 'connected'
    )
  })
}
