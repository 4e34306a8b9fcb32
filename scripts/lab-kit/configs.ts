import { mkdirSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { stringify } from 'yaml'
import { allSites, type LabLayout, type Site } from './layout.ts'

/** A port nobody listens on now. Written into a configuration, so that a daemon keeps it when it starts again. */
export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', resolve)
  })
  const address = server.address()
  await new Promise<void>((resolve) => server.close(() => resolve()))
  if (address === null || typeof address === 'string') throw new Error('no free port')
  return address.port
}

export interface LabPorts {
  readonly channel: number
  readonly registration: number
  readonly agents: Readonly<Record<string, number>>
}

export async function choosePorts(): Promise<LabPorts> {
  const agents: Record<string, number> = {}
  for (const host of allSites.flatMap((site) => site.hosts)) agents[host] = await freePort()
  return { channel: await freePort(), registration: await freePort(), agents }
}

/** Reconnects within a second: a lab is watched by a person. */
const labBackoffMs = 200

/** What is different from one kind of host to another. */
export interface SiteDriver {
  fabric(site: Site): object
  hypervisor(site: Site, host: string): object
}

export function writeConfigs(layout: LabLayout, ports: LabPorts): void {
  writeDaemonConfigs(layout, ports, {
    fabric: ({ name }) => ({ driver: 'folder', root: layout.fabricRoot(name) }),
    hypervisor: ({ name }, host) => ({ driver: 'folder', root: layout.fabricRoot(name), host }),
  })
  for (const site of allSites) writeFabric(layout, site)
}

export function writeDaemonConfigs(layout: LabLayout, ports: LabPorts, driver: SiteDriver): void {
  write(layout.coordinatorDir, {
    dataDir: 'data',
    listen: { host: '127.0.0.1', port: ports.channel },
    registration: { host: '127.0.0.1', port: ports.registration },
    admin: { socket: layout.socket },
    log: { dir: 'log' },
  })
  const reconnect = { minMs: labBackoffMs, maxMs: 2_000 }
  for (const site of allSites) {
    write(layout.providerDir(site.name), {
      name: site.vmmServer,
      dataDir: 'data',
      fabric: driver.fabric(site),
      reconnect,
      log: { dir: 'log' },
    })
    for (const host of site.hosts) {
      write(layout.agentDir(host), {
        name: host,
        dataDir: 'data',
        hypervisor: driver.hypervisor(site, host),
        listen: { host: '127.0.0.1', port: ports.agents[host] },
        reconnect,
        log: { dir: 'log' },
      })
    }
  }
}

function write(dir: string, config: object): void {
  mkdirSync(dir, { recursive: true })
  writeFileSync(join(dir, 'config.yaml'), stringify(config))
}

function writeFabric(layout: LabLayout, site: Site): void {
  const root = layout.fabricRoot(site.name)
  for (const host of site.hosts) {
    mkdirSync(join(root, 'hosts', host, 'vms'), { recursive: true })
    writeFileSync(
      join(root, 'hosts', host, 'host.yaml'),
      stringify({ networks: [site.network, site.testNetwork], classifications: ['standard'] }),
    )
  }
  const letter = site.name.slice(-1)
  const subnet = (cidr: string) => [{ name: 'default', cidr }]
  writeFileSync(
    join(root, 'fabric.yaml'),
    stringify({
      vmmServer: site.vmmServer,
      version: '2012 R2',
      clouds: [{ name: site.cloud, hosts: site.hosts }],
      networks: [
        {
          name: site.network,
          logicalNetwork: 'production',
          subnets: subnet(letter === 'a' ? '10.1.0.0/24' : '10.2.0.0/24'),
        },
        { name: site.testNetwork, logicalNetwork: 'isolated', subnets: subnet('192.168.250.0/24') },
      ],
      classifications: [{ name: 'standard' }],
    }),
  )
}
