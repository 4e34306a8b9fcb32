import type { NicSpec } from '#shared/messages/vm.ts'

/** VM network of the source cloud → VM network of the target cloud. */
export type NetworkMap = Readonly<Record<string, string>>

export interface MappedNics {
  readonly nics: readonly NicSpec[]
  /** Source networks without a mapping: their NICs stay unconnected at the target. */
  readonly unmapped: readonly string[]
}

export function mapNics(nics: readonly NicSpec[], map: NetworkMap): MappedNics {
  const unmapped = new Set<string>()
  const mapped = nics.map(({ name, network }) => {
    if (network === null) return { name, network }
    if (Object.hasOwn(map, network)) return { name, network: map[network] ?? null }
    unmapped.add(network)
    return { name, network: null }
  })
  return { nics: mapped, unmapped: [...unmapped] }
}

/** A test failover's NICs: all on the chosen network, or all unconnected. Never on the production network by default. */
export function testNics(nics: readonly NicSpec[], network: string | null): readonly NicSpec[] {
  return nics.map(({ name }) => ({ name, network }))
}

/** NICs that are not where they should be: "eth0: on none instead of blue". Empty: all are. */
export function misplacedNics(wanted: readonly NicSpec[], seen: readonly NicSpec[]): readonly string[] {
  return wanted.flatMap(({ name, network }) => {
    const found = seen.find((nic) => nic.name === name)
    if (!found) return [`${name}: missing`]
    return found.network === network
      ? []
      : [`${name}: on ${found.network ?? 'no network'} instead of ${network ?? 'none'}`]
  })
}
