/** VM networks, and the NICs on them (https://libvirt.org/formatdomain.html#network-interfaces). */
import { createHash } from 'node:crypto'
import type { Element } from '@xmldom/xmldom'
import { append, child, children, parseXml, removeChildren } from '#shared/libvirt/xml.ts'
import type { FabricInventory } from '../port.ts'
import type { ConfiguredNetwork } from './config.ts'

/** Those of one host. */
export interface HostNetworks {
  /** Of libvirt, and running. */
  readonly active: ReadonlySet<string>
  readonly configured: readonly ConfiguredNetwork[]
}

export const reaches = ({ active, configured }: HostNetworks, name: string): boolean =>
  active.has(name) || configured.some((network) => network.name === name)

/** The network a NIC is connected to in fact: null for none, one that does not run, or a link that is down. */
export function networkOf(nic: Element, networks: HostNetworks): string | null {
  if (child(nic, 'link')?.getAttribute('state') === 'down') return null
  const source = child(nic, 'source')
  switch (nic.getAttribute('type')) {
    case 'network': {
      const name = source?.getAttribute('network') ?? ''
      return networks.active.has(name) ? name : null
    }
    case 'bridge': {
      const bridge = source?.getAttribute('bridge') ?? ''
      const known = networks.configured.find((network) => 'bridge' in network && network.bridge === bridge)
      // One that nobody named is a network of its own name, so that it can be mapped.
      return known?.name ?? (bridge || null)
    }
    case 'mcast': {
      const [address, port] = [source?.getAttribute('address'), Number(source?.getAttribute('port'))]
      return nameOf(
        networks,
        (network) =>
          'multicast' in network && network.multicast.address === address && network.multicast.port === port,
      )
    }
    case 'user':
      return nameOf(networks, (network) => 'userMode' in network)
    default:
      return null
  }
}

function nameOf({ configured }: HostNetworks, is: (network: ConfiguredNetwork) => boolean): string | null {
  return configured.find(is)?.name ?? null
}

/**
 * Puts a NIC on a network; null: on none, with its link down, as a cable that is pulled. libvirt's own NIC without a network
 * (type null) ends libvirtd 9.0 when such a domain starts; a multicast group that nobody else is in works everywhere.
 */
export function connect(nic: Element, name: string | null, { configured }: HostNetworks): void {
  removeChildren(
    nic,
    'source',
    'link',
    'virtualport',
    'vlan',
    'target',
    'filterref',
    'backend',
    'portForward',
  )
  const known = configured.find((network) => network.name === name)
  if (name === null) {
    nic.setAttribute('type', 'mcast')
    append(nic, 'source', { address: ownGroup(nic), port: '49152' })
    append(nic, 'link', { state: 'down' })
  } else if (known === undefined) {
    nic.setAttribute('type', 'network')
    append(nic, 'source', { network: name })
  } else if ('bridge' in known) {
    nic.setAttribute('type', 'bridge')
    append(nic, 'source', { bridge: known.bridge })
  } else if ('multicast' in known) {
    nic.setAttribute('type', 'mcast')
    append(nic, 'source', { address: known.multicast.address, port: String(known.multicast.port) })
  } else nic.setAttribute('type', 'user')
}

/** In the range for local use (RFC 2365), by the address of the NIC. */
function ownGroup(nic: Element): string {
  const mac = child(nic, 'mac')?.getAttribute('address') ?? ''
  const [a = 0, b = 0, c = 0] = createHash('sha256').update(mac).digest()
  return `239.${a}.${b}.${c}`
}

/** As libvirt describes one of its networks. */
export function describeNetwork(xml: string): FabricInventory['networks'][number] {
  const network = parseXml(xml)
  const name = child(network, 'name')?.textContent ?? ''
  const mode = child(network, 'forward')?.getAttribute('mode')
  const subnets = children(network, 'ip').flatMap((ip) => {
    const address = ip.getAttribute('address')
    const cidr = cidrOf(address, ip.getAttribute('prefix'), ip.getAttribute('netmask'))
    return cidr === undefined ? [] : [{ name: cidr, cidr }]
  })
  return { name, logicalNetwork: mode ?? 'isolated', subnets }
}

function cidrOf(address: string | null, prefix: string | null, netmask: string | null): string | undefined {
  if (!address) return undefined
  if (prefix) return `${address}/${prefix}`
  if (!netmask) return undefined
  const bits = netmask.split('.').map((part) => Number(part).toString(2).replaceAll('0', '').length)
  return `${address}/${bits.reduce((sum, count) => sum + count, 0)}`
}
