import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { fabricVmId } from '#shared/ids.ts'
import { type Domain, parseDomain } from '#shared/libvirt/domain.ts'
import { child, descendant, parseXml, textOf } from '#shared/libvirt/xml.ts'
import type { FabricInventory } from '../port.ts'
import type { LibvirtFabricConfig } from './config.ts'
import { generationOf, operatingSystemOf } from './define-domain.ts'
import { type FoundDomain, found, type LibvirtHost, networksOf } from './hosts.ts'
import { describeNetwork, type HostNetworks } from './networks.ts'
import { observeDomain } from './observe.ts'
import type { SignsOfLife } from './signs-of-life.ts'

/** What one host adds to the inventory. */
export interface HostInventory {
  readonly version: string
  readonly host: FabricInventory['hosts'][number]
  readonly networks: FabricInventory['networks']
  readonly classifications: readonly string[]
  readonly vms: FabricInventory['vms']
}

interface Pool {
  readonly name: string
  readonly path: string
  readonly freeBytes: number
}

export interface InventoryContext {
  readonly classifications: LibvirtFabricConfig['classifications']
  readonly signs: SignsOfLife
  /** A VM that cannot be read is left out; whoever runs us learns why. */
  readonly onLeftOut: (error: unknown) => void
}

/** Throws `libvirt-unreachable`, `libvirt-failed`. */
export async function takeHostInventory(
  host: LibvirtHost,
  context: InventoryContext,
): Promise<HostInventory> {
  const { virsh, config } = host
  const networks = await networksOf(host)
  const [nodeinfo, version, uuids, poolNames, netNames] = await virsh.batch([
    ['nodeinfo'],
    ['version'],
    ['list', '--all', '--uuid'],
    ['pool-list', '--name'],
    ['net-list', '--all', '--name'],
  ])
  const pools = await poolsOf(host, lines(poolNames))
  const described = await virsh.batch(lines(netNames).map((name) => ['net-dumpxml', name]))
  const labels = labelsOf(context.classifications, pools)
  const vms = await vmsOf(host, lines(uuids), { ...context, networks, pools })
  const bridges = vms.flatMap(({ nics }) => nics.flatMap(({ network }) => network ?? []))
  const named = [...networks.active, ...config.networks.map(({ name }) => name), ...bridges]
  return {
    version: /library: .*?([\d.]+)\s*$/m.exec(version ?? '')?.[1] ?? '',
    host: {
      name: config.name,
      memoryBytes: Number(/^Memory size:\s+(\d+) KiB/m.exec(nodeinfo ?? '')?.[1] ?? 0) * 1024,
      cpuCount: Number(/^CPU\(s\):\s+(\d+)/m.exec(nodeinfo ?? '')?.[1] ?? 1),
      freeDiskBytes: freeForReplicas(host, pools),
      networks: [...new Set(named)],
      classifications: [...new Set(labels.values())],
    },
    networks: [
      ...described.flatMap((xml) => (xml === undefined ? [] : [describeNetwork(xml)])),
      ...[...config.networks.map(({ name }) => name), ...bridges].map((name) => ({
        name,
        logicalNetwork: name,
        subnets: [],
      })),
    ],
    classifications: [...new Set(labels.values())],
    vms,
  }
}

const lines = (text: string | undefined): string[] =>
  (text ?? '')
    .split('\n')
    .map((line) => line.trim())
    .filter(Boolean)

async function poolsOf({ virsh }: LibvirtHost, names: readonly string[]): Promise<Pool[]> {
  const xml = await virsh.batch(names.map((name) => ['pool-dumpxml', name]))
  return xml.flatMap((text) => {
    if (text === undefined) return []
    const pool = parseXml(text)
    return [
      {
        name: textOf(child(pool, 'name')),
        path: textOf(descendant(pool, 'target', 'path')),
        freeBytes: Number(textOf(child(pool, 'available'))) || 0,
      },
    ]
  })
}

/** Classification by pool. */
function labelsOf(
  classifications: LibvirtFabricConfig['classifications'],
  pools: readonly Pool[],
): ReadonlyMap<string, string> {
  return new Map(
    pools.flatMap(({ name }): [string, string][] => {
      if (!classifications) return [[name, name]]
      const label = classifications.find((each) => each.pools.includes(name))
      return label ? [[name, label.name]] : []
    }),
  )
}

function freeForReplicas({ config }: LibvirtHost, pools: readonly Pool[]): number {
  const { replicaPool } = config
  if (replicaPool === undefined) return Math.max(0, ...pools.map(({ freeBytes }) => freeBytes))
  const pool = pools.find(({ name }) => name === replicaPool)
  if (pool) return pool.freeBytes
  throw new HotsiteError(
    'config-invalid',
    `fabric.clouds: host ${config.name} has no running storage pool ${replicaPool} (replicaPool)`,
  )
}

interface VmContext extends InventoryContext {
  readonly networks: HostNetworks
  readonly pools: readonly Pool[]
}

async function vmsOf(
  host: LibvirtHost,
  uuids: readonly string[],
  context: VmContext,
): Promise<FabricInventory['vms']> {
  const answers = await host.virsh.batch(
    uuids.flatMap((uuid) => [
      ['dumpxml', '--inactive', uuid],
      ['dumpxml', uuid],
      ['domblkinfo', uuid, '--all'],
    ]),
  )
  const vms: FabricInventory['vms'] = []
  for (const [i, uuid] of uuids.entries()) {
    const [inactive, active, sizes = ''] = answers.slice(i * 3, i * 3 + 3)
    // Removed since it was listed.
    if (inactive === undefined || active === undefined) continue
    try {
      vms.push(await describeVm({ domain: found(host, inactive, active), xml: inactive, sizes }, context))
    } catch (error) {
      context.onLeftOut(
        new HotsiteError('libvirt-failed', `domain ${uuid} on ${host.config.name} cannot be described`, {
          cause: error,
        }),
      )
    }
  }
  return vms
}

async function describeVm(
  { domain, xml, sizes }: { domain: FoundDomain; xml: string; sizes: string },
  { networks, pools, classifications, signs }: VmContext,
): Promise<FabricInventory['vms'][number]> {
  const { definition, metadata, host, uuid, name } = domain
  const parsed = parseDomain(xml)
  const observation = await observeDomain(domain, networks, signs)
  return {
    fabricVmId: metadata.fabricVmId ?? fabricVmId.parse(uuid),
    name,
    host: host.config.name,
    generation: metadata.generation ?? generationOf(definition),
    operatingSystem: metadata.operatingSystem ?? operatingSystemOf(definition),
    memoryBytes: Number(textOf(child(definition, 'memory'))) * 1024,
    cpuCount: Number(textOf(child(definition, 'vcpu'))) || 1,
    disks: disksOf(parsed, sizes, metadata),
    nics: observation.nics,
    classification: metadata.classification ?? classificationOf(parsed, pools, classifications),
    driverSettings: { domainXml: xml },
    cloud: host.cloud,
    observation,
  }
}

function disksOf(
  { disks, name }: Domain,
  sizes: string,
  metadata: FoundDomain['metadata'],
): FabricInventory['vms'][number]['disks'] {
  const orders = disks.flatMap(({ bootOrder }) => bootOrder ?? [])
  const first = orders.length > 0 ? disks.findIndex((disk) => disk.bootOrder === Math.min(...orders)) : 0
  return disks.map(({ diskId, target }, i) => {
    const sizeBytes = Number(new RegExp(`^ *${target} +(\\d+)`, 'm').exec(sizes)?.[1] ?? 0)
    if (!(sizeBytes > 0))
      throw new HotsiteError('disk-missing', `libvirt does not say how large disk ${target} of VM ${name} is`)
    const known = metadata.disks.find((disk) => disk.target === target)
    return { diskId, name: known?.name ?? target, sizeBytes, boot: known?.boot ?? i === first }
  })
}

/** That of the pool in which the first disk lies. */
function classificationOf(
  { disks }: Domain,
  pools: readonly Pool[],
  classifications: LibvirtFabricConfig['classifications'],
): string | null {
  const path = disks[0]?.path
  const pool = pools.find((each) => path?.startsWith(`${each.path}/`))
  return pool ? (labelsOf(classifications, [pool]).get(pool.name) ?? null) : null
}
