/** The hosts of this provider, and the domains on them. */
import type { Element } from '@xmldom/xmldom'
import { errorDocument, HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { FabricVmId } from '#shared/ids.ts'
import { domainUuid } from '#shared/libvirt/domain-uuid.ts'
import { type DomainMetadata, readMetadata } from '#shared/libvirt/metadata.ts'
import type { Virsh } from '#shared/libvirt/virsh.ts'
import { child, parseXml, textOf } from '#shared/libvirt/xml.ts'
import type { LibvirtFabricConfig, LibvirtHostConfig } from './config.ts'
import type { HostNetworks } from './networks.ts'

export interface LibvirtHost {
  readonly config: LibvirtHostConfig
  readonly cloud: string
  readonly virsh: Virsh
}

/** A domain as it was found, just now. */
export interface FoundDomain {
  readonly host: LibvirtHost
  readonly uuid: string
  readonly name: string
  /** As it would start. */
  readonly definition: Element
  /** As it runs; undefined: it is off. */
  readonly live: Element | undefined
  readonly metadata: DomainMetadata
}

export function openHosts(
  config: LibvirtFabricConfig,
  openVirsh: (uri: string) => Virsh,
): ReadonlyMap<string, LibvirtHost> {
  const hosts = new Map<string, LibvirtHost>()
  for (const cloud of config.clouds)
    for (const host of cloud.hosts) {
      if (hosts.has(host.name))
        throw new HotsiteError('config-invalid', `fabric.clouds: host ${host.name} is in it twice`)
      hosts.set(host.name, { config: host, cloud: cloud.name, virsh: openVirsh(host.uri) })
    }
  return hosts
}

export async function networksOf({ virsh, config }: LibvirtHost): Promise<HostNetworks> {
  const names = (await virsh.run(['net-list', '--name'])).split('\n').map((name) => name.trim())
  return { active: new Set(names.filter(Boolean)), configured: config.networks }
}

/** undefined: it is not there. Throws `libvirt-unreachable`. */
export async function domainOn(host: LibvirtHost, uuid: string): Promise<FoundDomain | undefined> {
  const [inactive, active] = await host.virsh.batch([
    ['dumpxml', '--inactive', uuid],
    ['dumpxml', uuid],
  ])
  if (inactive === undefined || active === undefined) {
    try {
      await host.virsh.run(['domstate', uuid])
    } catch (error) {
      if (errorDocument(error).code === 'vm-unknown') return undefined
      throw error
    }
    throw new HotsiteError(
      'libvirt-failed',
      `libvirt on ${host.config.name} does not show the domain ${uuid}`,
    )
  }
  return found(host, inactive, active)
}

export function found(host: LibvirtHost, inactive: string, active: string): FoundDomain {
  const definition = parseXml(inactive)
  const live = parseXml(active)
  return {
    host,
    uuid: textOf(child(definition, 'uuid')),
    name: textOf(child(definition, 'name')),
    definition,
    live: live.hasAttribute('id') ? live : undefined,
    metadata: readMetadata(definition),
  }
}

/** Where each VM was found last: it is looked for there first. */
export class DomainFinder {
  readonly #hosts: ReadonlyMap<string, LibvirtHost>
  readonly #last = new Map<string, LibvirtHost>()

  constructor(hosts: ReadonlyMap<string, LibvirtHost>) {
    this.#hosts = hosts
  }

  /**
   * undefined: it is on none of the hosts. Throws `libvirt-unreachable` when that cannot be known, and `vm-ambiguous` when
   * two hosts define it and it runs on both or none.
   */
  async find(id: FabricVmId): Promise<FoundDomain | undefined> {
    const uuid = domainUuid(id)
    const last = this.#last.get(uuid)
    if (last && this.#hosts.size > 1) {
      const there = await domainOn(last, uuid).catch(() => undefined)
      if (there?.live) return there
    }
    const looks = await Promise.allSettled([...this.#hosts.values()].map((host) => domainOn(host, uuid)))
    const all = looks.flatMap((look) => (look.status === 'fulfilled' && look.value ? [look.value] : []))
    const failed = looks.find((look) => look.status === 'rejected')
    const running = all.filter(({ live }) => live)
    const only = all.length === 1 ? all[0] : running.length === 1 ? running[0] : undefined
    if (only) {
      this.#last.set(uuid, only.host)
      return only
    }
    if (all.length > 1)
      throw new HotsiteError(
        'vm-ambiguous',
        `VM ${id} is defined on ${all.map(({ host }) => host.config.name).join(' and ')}`,
      )
    if (failed) throw failed.reason
    return undefined
  }
}
