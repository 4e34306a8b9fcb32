/**
 * What we keep in the `<metadata>` of a domain that we defined: libvirt leaves it alone and carries it along
 * (https://libvirt.org/formatdomain.html#general-metadata).
 */
import type { Element } from '@xmldom/xmldom'
import { z } from 'zod'
import { HotsiteError } from '../errors/hotsite-error.ts'
import { diskId, fabricVmId } from '../ids.ts'
import { append, child, children, descendant, removeChildren, textOf } from './xml.ts'

export const METADATA_NAMESPACE = 'urn:hotsite:libvirt:1'
const ELEMENT = 'hotsite:vm'

export const domainMetadata = z.object({
  /** As the coordinator calls it. */
  fabricVmId: fabricVmId.optional(),
  generation: z.int().optional(),
  operatingSystem: z.string().optional(),
  classification: z.string().nullable().optional(),
  disks: z.array(z.object({ diskId, name: z.string(), target: z.string(), boot: z.boolean() })).default([]),
  nics: z.array(z.object({ name: z.string(), network: z.string().nullable() })).default([]),
  /** Somebody else defined it on this host; we only changed where its disks lie and its NICs lead. */
  isHome: z.boolean().optional(),
  /** Of what was asked for, so that a repetition is recognized. */
  requestHash: z.string().optional(),
  fence: z.object({ epoch: z.int(), reason: z.string() }).optional(),
})
export type DomainMetadata = z.infer<typeof domainMetadata>

const none: DomainMetadata = { disks: [], nics: [] }

/**
 * Nothing, for a domain of somebody else. Throws `libvirt-failed` for what is not understood: a fence stands there, and one
 * that cannot be read is not one that is lifted (I5).
 */
export function readMetadata(domain: Element): DomainMetadata {
  const text = textOf(descendant(domain, 'metadata', ELEMENT))
  if (!text) return none
  try {
    return domainMetadata.parse(JSON.parse(text))
  } catch (error) {
    const name = textOf(child(domain, 'name'))
    throw new HotsiteError(
      'libvirt-failed',
      `what Hotsite wrote into the metadata of domain ${name} is not understood: was it edited, or written by a newer version?`,
      { cause: error },
    )
  }
}

export function writeMetadata(domain: Element, metadata: DomainMetadata): void {
  removeMetadata(domain)
  const holder = child(domain, 'metadata') ?? append(domain, 'metadata')
  const element = append(holder, ELEMENT, { 'xmlns:hotsite': METADATA_NAMESPACE })
  element.appendChild(holder.ownerDocument?.createTextNode(JSON.stringify(metadata)) ?? element)
}

/** Leaves what others keep there. */
export function removeMetadata(domain: Element): void {
  const holder = child(domain, 'metadata')
  if (!holder) return
  removeChildren(holder, ELEMENT)
  if (children(holder).length === 0) domain.removeChild(holder)
}
