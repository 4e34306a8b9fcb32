import { child, children } from '#shared/libvirt/xml.ts'
import type { VmObservation } from '#shared/messages/vm.ts'
import type { FoundDomain } from './hosts.ts'
import { type HostNetworks, networkOf } from './networks.ts'
import type { SignsOfLife } from './signs-of-life.ts'

export const nothingThere: VmObservation = {
  exists: false,
  power: 'off',
  heartbeatAgeMs: null,
  nics: [],
  fenced: false,
}

/** NICs in the order of the definition, under the names they were given, or their numbers. */
export function nicsOf(
  { live, definition, metadata }: FoundDomain,
  networks: HostNetworks,
): VmObservation['nics'] {
  return children(child(live ?? definition, 'devices'), 'interface').map((nic, i) => ({
    name: metadata.nics[i]?.name ?? `eth${i}`,
    network: networkOf(nic, networks),
  }))
}

export async function observeDomain(
  domain: FoundDomain,
  networks: HostNetworks,
  signs: SignsOfLife,
): Promise<VmObservation> {
  return {
    exists: true,
    power: domain.live ? 'running' : 'off',
    heartbeatAgeMs: await signs.ageMs(domain),
    nics: nicsOf(domain, networks),
    fenced: domain.metadata.fence !== undefined,
  }
}
