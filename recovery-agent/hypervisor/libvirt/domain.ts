/** What the agent has to know of a domain, out of its definition (https://libvirt.org/formatdomain.html). */
import { DOMParser, type Element } from '@xmldom/xmldom'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { type DiskId, diskId } from '#shared/ids.ts'

export interface DomainDisk {
  /** The name libvirt gives it in the domain, like `vda`. */
  readonly diskId: DiskId
  /** File or block device; null: it lies elsewhere, and is read through QEMU only. */
  readonly path: string | null
  readonly format: string
}

export interface Domain {
  readonly uuid: string
  readonly name: string
  /** QEMU lives, whatever the guest does. */
  readonly isLive: boolean
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
  const all = children(child(domain, 'devices'), 'disk')
  const disks = all.filter(isReplicated).flatMap(diskOf)
  const others = all
    .filter((disk) => !isReplicated(disk))
    .flatMap((disk) => child(disk, 'target')?.getAttribute('dev') ?? [])
  // Only a domain that lives has an id.
  return { uuid, name, isLive: domain.hasAttribute('id'), disks, others }
}

function isReplicated(disk: Element): boolean {
  const device = disk.getAttribute('device') ?? 'disk'
  return device === 'disk' && ['readonly', 'shareable', 'transient'].every((name) => !child(disk, name))
}

function diskOf(disk: Element): DomainDisk[] {
  const target = diskId.safeParse(child(disk, 'target')?.getAttribute('dev'))
  if (!target.success) return []
  const source = child(disk, 'source')
  const path = source?.getAttribute('file') ?? source?.getAttribute('dev') ?? null
  return [{ diskId: target.data, path, format: child(disk, 'driver')?.getAttribute('type') ?? 'raw' }]
}

export function parseXml(xml: string): Element {
  try {
    const root = new DOMParser({ onError: () => {} }).parseFromString(xml, 'text/xml').documentElement
    if (root) return root
  } catch (error) {
    throw new HotsiteError('libvirt-failed', 'libvirt answered something that is not XML', { cause: error })
  }
  throw new HotsiteError('libvirt-failed', 'libvirt answered something that is not XML')
}

export function children(parent: Element | undefined, name: string): Element[] {
  return [...(parent?.childNodes ?? [])].filter(
    (node): node is Element => node.nodeType === node.ELEMENT_NODE && node.nodeName === name,
  )
}

export function child(parent: Element | undefined, name: string): Element | undefined {
  return children(parent, name)[0]
}

function textOf(element: Element | undefined): string {
  return element?.textContent?.trim() ?? ''
}
