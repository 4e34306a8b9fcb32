/** A site whose host is under a libvirtd of its own, on this machine, and the guests that begin there. */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { eventually } from '#shared/testing/libvirt/eventually.ts'
import { PrivateLibvirtd } from '#shared/testing/libvirt/private-libvirtd.ts'
import { domainXml } from '#shared/testing/libvirt/test-libvirt.ts'
import type { SiteDriver } from '../lab-kit/configs.ts'
import { type SiteName, sites } from '../lab-kit/layout.ts'

export type Accelerator = 'tcg' | 'kvm'

/** What shared/testing/guest/guest-init does with its disks. */
export const guests = {
  orders: { name: 'orders', role: 'orders', disks: 2 },
  database: { name: 'database', role: 'database', disks: 1 },
  latency: { name: 'latency', role: 'latency', disks: 1 },
} as const
export type GuestName = keyof typeof guests

const DISK_MIB = 64
/** Multicast groups that carry the networks of the demo; guests of different sites never meet. */
const groups: Readonly<Record<string, string>> = {
  'prod-a': '239.77.1.1',
  'isolated-a': '239.77.1.2',
  'prod-b': '239.77.2.1',
  'isolated-b': '239.77.2.2',
}
const NETWORK_PORT = 49_200

export class KvmSite {
  readonly name: SiteName
  readonly dir: string
  readonly libvirtd: PrivateLibvirtd

  constructor(name: SiteName, dir: string) {
    this.name = name
    this.dir = dir
    mkdirSync(join(dir, 'images'), { recursive: true })
    // A host has the system's libvirtd; a user without its rights gets along with one of his own.
    this.libvirtd = new PrivateLibvirtd(dir, process.getuid?.() === 0 ? 'system' : 'session')
  }

  get images(): string {
    return join(this.dir, 'images')
  }

  async start(): Promise<void> {
    await this.libvirtd.start()
    await this.libvirtd.virsh('pool-create-as', 'images', 'dir', '--target', this.images)
  }

  async stop(): Promise<void> {
    await this.libvirtd.stopGuests()
    await this.libvirtd.kill()
  }

  /** With file systems on its disks, as an installation would leave them. */
  async makeGuest(guest: GuestName, options: { guestDir: string; accel: Accelerator }): Promise<void> {
    const { name, role, disks: count } = guests[guest]
    const disks = Array.from({ length: count }, (_, i) => ({
      path: join(this.images, `${name}-${i}.qcow2`),
      format: 'qcow2' as const,
    }))
    for (const { path } of disks) makeFileSystem(path)
    const { network } = sites[this.name]
    const nic = `<interface type='mcast'><source address='${groups[network]}' port='${NETWORK_PORT}'/><model type='virtio'/></interface>`
    const xml = join(this.dir, `${name}.xml`)
    writeFileSync(xml, domainXml({ name, role, disks, nic, console: 'screen', ...options }))
    await this.libvirtd.virsh('define', xml)
    await this.libvirtd.virsh('start', name)
    await eventually(`guest ${name} comes up`, async () => (await this.report(name)) !== undefined)
  }

  /** What the guest says of itself, through its agent; undefined: it does not, yet. */
  report(domain: string): Promise<string | undefined> {
    return this.readFile(domain, '/run/report').then(
      (text) => text.trim() || undefined,
      () => undefined,
    )
  }

  /** A file in the guest, through its agent. */
  async readFile(domain: string, path: string): Promise<string> {
    const handle = await this.#agent(domain, 'guest-file-open', { path, mode: 'r' })
    const read = await this.#agent(domain, 'guest-file-read', { handle, count: 4 << 20 })
    await this.#agent(domain, 'guest-file-close', { handle })
    return Buffer.from((read as { 'buf-b64': string })['buf-b64'], 'base64').toString()
  }

  async #agent(domain: string, execute: string, args: object): Promise<unknown> {
    const command = JSON.stringify({ execute, arguments: args })
    const answer = await this.libvirtd.virsh('qemu-agent-command', domain, command, '--timeout', '10')
    return (JSON.parse(answer) as { return: unknown }).return
  }

  async domains(): Promise<string[]> {
    return (await this.libvirtd.virsh('list', '--all', '--name')).split('\n').filter(Boolean)
  }

  /** As the power going away. */
  killQemu(domain: string): void {
    const runDir = this.libvirtd.mode === 'system' ? 'run/qemu' : 'run/libvirt/qemu/run'
    const pid = Number(readFileSync(join(this.dir, runDir, `${domain}.pid`), 'utf8'))
    process.kill(pid, 'SIGKILL')
  }
}

export function siteDriver(siteOf: (name: SiteName) => KvmSite): SiteDriver {
  return {
    fabric: ({ name, vmmServer, cloud, hosts, network, testNetwork }) => ({
      driver: 'libvirt',
      vmmServer,
      clouds: [
        {
          name: cloud,
          hosts: hosts.map((host) => ({
            name: host,
            uri: siteOf(name).libvirtd.uri,
            networks: [network, testNetwork].map((each) => ({
              name: each,
              multicast: { address: groups[each], port: NETWORK_PORT },
            })),
          })),
        },
      ],
      classifications: [{ name: 'standard', pools: ['images'] }],
    }),
    hypervisor: ({ name }, host) => ({
      driver: 'libvirt',
      uri: siteOf(name).libvirtd.uri,
      host,
      scratchDir: join(siteOf(name).dir, 'scratch'),
    }),
  }
}

function makeFileSystem(path: string): void {
  const raw = `${path}.raw`
  try {
    execFileSync('mke2fs', ['-q', '-t', 'ext4', raw, `${DISK_MIB}M`], {
      stdio: 'pipe',
      env: { ...process.env, PATH: `${process.env['PATH']}:/usr/sbin:/sbin` },
    })
    execFileSync('qemu-img', ['convert', '-O', 'qcow2', raw, path], { stdio: 'pipe' })
  } finally {
    if (existsSync(raw)) rmSync(raw)
  }
}
