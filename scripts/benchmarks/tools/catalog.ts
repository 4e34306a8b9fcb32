/** Every tool there is, and why it may be left out here. */
import { has } from '../processes.ts'
import type { Tool, Workload } from '../workload.ts'
import { openBare } from './bare.ts'
import { openBlocksyncFast } from './blocksync-fast.ts'
import { openBtrfsSend } from './btrfs-send.ts'
import { openCp } from './cp.ts'
import { openHotsite } from './hotsite.ts'
import { openNbdcopyPlain, openNbdcopyPushTls, openNbdcopyTls } from './nbdcopy.ts'
import { openRsyncDaemon, openRsyncSsh } from './rsync.ts'
import type { Site } from './site.ts'
import { openVirtnbdbackup } from './virtnbdbackup.ts'

interface CatalogEntry {
  readonly name: string
  readonly workloads: readonly Workload[]
  /** Commands and the Debian package of each; null: in none. */
  readonly needs: Readonly<Record<string, string | null>>
  /** Mounts file systems: only as root, in namespaces of our own. */
  readonly mounts?: true
  open(site: Site): Promise<Tool>
}

const ssh = { sshd: 'openssh-server', ssh: 'openssh-client' }
const nbd = { nbdcopy: 'libnbd-bin', openssl: 'openssl' }

export const catalog: readonly CatalogEntry[] = [
  { name: 'hotsite', workloads: ['W1-encrypted', 'W1-plain', 'W2', 'W3'], needs: {}, open: openHotsite },
  {
    name: 'rsync-ssh',
    workloads: ['W1-encrypted', 'W2'],
    needs: { rsync: 'rsync', ...ssh },
    open: openRsyncSsh,
  },
  {
    name: 'nbdcopy-tls',
    workloads: ['W1-encrypted'],
    needs: { ...nbd, 'qemu-nbd': 'qemu-utils' },
    open: openNbdcopyTls,
  },
  {
    name: 'nbdcopy-push-tls',
    workloads: ['W1-encrypted'],
    needs: { ...nbd, nbdkit: 'nbdkit' },
    open: openNbdcopyPushTls,
  },
  { name: 'rsync-daemon', workloads: ['W1-plain', 'W2'], needs: { rsync: 'rsync' }, open: openRsyncDaemon },
  { name: 'nbdcopy', workloads: ['W1-plain'], needs: { ...nbd, nbdkit: 'nbdkit' }, open: openNbdcopyPlain },
  { name: 'cp', workloads: ['W1-plain'], needs: {}, open: openCp },
  {
    name: 'blocksync-fast',
    workloads: ['W2'],
    needs: { 'blocksync-fast': null, ...ssh },
    open: openBlocksyncFast,
  },
  { name: 'bare', workloads: ['W3'], needs: { openssl: 'openssl' }, open: openBare },
  {
    name: 'virtnbdbackup',
    workloads: ['W3'],
    needs: {
      virtnbdbackup: 'virtnbdbackup',
      libvirtd: 'libvirt-daemon-system',
      virsh: 'libvirt-clients',
      'qemu-system-x86_64': 'qemu-system-x86',
    },
    mounts: true,
    open: openVirtnbdbackup,
  },
  {
    name: 'btrfs-send',
    workloads: ['W3'],
    needs: { btrfs: 'btrfs-progs', 'mkfs.btrfs': 'btrfs-progs', ...ssh },
    mounts: true,
    open: openBtrfsSend,
  },
]

export interface Skipped {
  readonly tool: string
  readonly reason: string
}

/** The reason why the tool cannot run here; undefined: it can. */
export function whyNot({ needs, mounts }: CatalogEntry, ownNamespaces: boolean): string | undefined {
  const missing = Object.entries(needs).filter(([command]) => !has(command))
  if (missing.length > 0)
    return missing
      .map(
        ([command, pkg]) =>
          `${command} is not installed (${pkg ? `Debian package ${pkg}` : 'no Debian package has it'})`,
      )
      .join(', ')
  if (mounts && !ownNamespaces) return 'it mounts file systems, which needs root and namespaces of its own'
  return undefined
}
