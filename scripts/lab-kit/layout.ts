import { join } from 'node:path'

/** Where everything of one lab lies. A lab is a folder: remove it and nothing of it is left. */
export interface LabLayout {
  readonly dir: string
  readonly labFile: string
  readonly vaultDir: string
  readonly credentialsFile: string
  readonly socket: string
  /** Holds `hotsite` and nothing else, for a PATH. */
  readonly binDir: string
  readonly coordinatorDir: string
  fabricRoot(site: SiteName): string
  providerDir(site: SiteName): string
  agentDir(host: string): string
}

export type SiteName = 'site-a' | 'site-b'

export interface Site {
  readonly name: SiteName
  readonly vmmServer: string
  readonly cloud: string
  readonly hosts: readonly string[]
  readonly network: string
  readonly testNetwork: string
}

/** The demo's two sites. Site A runs the VM at first; the coordinator stands at site B, because it must survive site A. */
export const sites: Readonly<Record<SiteName, Site>> = {
  'site-a': {
    name: 'site-a',
    vmmServer: 'vmm-a',
    cloud: 'gold-a',
    hosts: ['host-a1'],
    network: 'prod-a',
    testNetwork: 'isolated-a',
  },
  'site-b': {
    name: 'site-b',
    vmmServer: 'vmm-b',
    cloud: 'gold-b',
    hosts: ['host-b1'],
    network: 'prod-b',
    testNetwork: 'isolated-b',
  },
}

export const allSites: readonly Site[] = Object.values(sites)

export function labLayout(dir: string): LabLayout {
  return {
    dir,
    labFile: join(dir, 'lab.json'),
    vaultDir: join(dir, 'vault'),
    credentialsFile: join(dir, 'vault', 'lab.hotsite-credentials'),
    socket: join(dir, 'coordinator', 'admin', 'hotsite.sock'),
    binDir: join(dir, 'bin'),
    coordinatorDir: join(dir, 'coordinator'),
    fabricRoot: (site) => join(dir, site, 'fabric'),
    providerDir: (site) => join(dir, site, 'provider'),
    agentDir: (host) => join(dir, siteOfHost(host), 'agents', host),
  }
}

export function siteOfHost(host: string): SiteName {
  const site = allSites.find(({ hosts }) => hosts.includes(host))
  if (!site) throw new Error(`no site has the host ${host}`)
  return site.name
}
