/** XML as libvirt writes it. */
import { DOMParser, type Element, XMLSerializer } from '@xmldom/xmldom'
import { HotsiteError } from '../errors/hotsite-error.ts'

/** Throws `libvirt-failed`. */
export function parseXml(xml: string): Element {
  try {
    const root = new DOMParser({ onError: () => {} }).parseFromString(xml, 'text/xml').documentElement
    if (root) return root
  } catch (error) {
    throw new HotsiteError('libvirt-failed', 'libvirt answered something that is not XML', { cause: error })
  }
  throw new HotsiteError('libvirt-failed', 'libvirt answered something that is not XML')
}

export function xmlText(element: Element): string {
  return new XMLSerializer().serializeToString(element)
}

export function children(parent: Element | undefined, name?: string): Element[] {
  return [...(parent?.childNodes ?? [])].filter(
    (node): node is Element =>
      node.nodeType === node.ELEMENT_NODE && (name === undefined || node.nodeName === name),
  )
}

export function child(parent: Element | undefined, name: string): Element | undefined {
  return children(parent, name)[0]
}

/** Down a path of names: the first of each. */
export function descendant(parent: Element | undefined, ...path: readonly string[]): Element | undefined {
  return path.reduce<Element | undefined>((found, name) => child(found, name), parent)
}

export function textOf(element: Element | undefined): string {
  return element?.textContent?.trim() ?? ''
}

/** A new last child, with its attributes. */
export function append(
  parent: Element,
  name: string,
  attributes: Readonly<Record<string, string>> = {},
): Element {
  const { ownerDocument } = parent
  if (!ownerDocument) throw new Error('an element without a document')
  const made = ownerDocument.createElement(name)
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  parent.appendChild(made)
  return made
}

export function removeChildren(parent: Element, ...names: readonly string[]): void {
  for (const name of names) for (const element of children(parent, name)) parent.removeChild(element)
}
