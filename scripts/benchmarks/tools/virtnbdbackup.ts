/**
 * virtnbdbackup -l inc: a libvirt guest that stands still, whose changes are written through QEMU so that its dirty bitmap
 * knows them. libvirt runs on copies of its folders, bound over them in our own mount namespace. The copy stays on this
 * machine and is not encrypted.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { BLOCK_BYTES } from '#shared/blocks/block.ts'
import { readBlock } from '../disk.ts'
import { untilResting } from '../measure.ts'
import { runScript, runTimed, type Server, startServer } from '../processes.ts'
import type { Job, Tool } from '../workload.ts'
import { type Site, sameImage } from './site.ts'

const domain = 'bench'
const virsh = 'virsh -q -c qemu:///system'
const libvirtDirs = [
  '/etc/libvirt',
  '/var/lib/libvirt',
  '/run/libvirt',
  '/var/log/libvirt',
  '/var/cache/libvirt',
]

export async function openVirtnbdbackup(site: Site): Promise<Tool> {
  const dir = site.folder('virtnbdbackup')
  const image = join(dir, 'disk.qcow2')
  const backup = join(dir, 'backup')
  const servers = await startLibvirt(dir)
  let guestPid: number | undefined
  const backUp = (level: string) =>
    `virtnbdbackup -d ${domain} -n -S "$1/scratch" -f "$1/nbd.sock" -U qemu:///system -o "$1/backup" -l ${level} >"$1/log" 2>&1 && sync -f "$1/backup"`
  const pids = () => [...servers.map(({ pid }) => pid), ...(guestPid === undefined ? [] : [guestPid])]
  const removeGuest = () => {
    if (guestPid === undefined) return
    guestPid = undefined
    runScript(`${virsh} destroy ${domain}; ${virsh} undefine ${domain} --checkpoints-metadata`)
  }
  return {
    name: 'virtnbdbackup',
    workloads: ['W3'],
    encrypted: false,
    onWire: false,
    async beforeChange({ source }) {
      removeGuest()
      runScript(
        'rm -rf "$2" "$4"; mkdir -p "$2" "$4"; qemu-img convert -f raw -O qcow2 "$1" "$3"; sync "$3"',
        [source, backup, image, join(dir, 'scratch')],
      )
      writeFileSync(join(dir, 'domain.xml'), domainXml(image))
      runScript(`${virsh} define "$1"; ${virsh} start --paused ${domain}`, [join(dir, 'domain.xml')])
      guestPid = Number(readFileSync(`/run/libvirt/qemu/${domain}.pid`, 'utf8'))
      runScript(backUp('full'), [dir])
    },
    async prepare(job) {
      writeThroughGuest(job, dir)
      await untilResting(pids())
    },
    pids,
    run: () => runTimed(backUp('inc'), [dir]),
    async identical({ source }) {
      const restored = join(dir, 'restored')
      runScript(`rm -rf "$2"; mkdir "$2"; virtnbdrestore -n -i "$1" -o "$2" -L "$2.log" >/dev/null 2>&1`, [
        backup,
        restored,
      ])
      return sameImage(join(restored, 'disk.qcow2'), source, 'qcow2')
    },
    finish: async () => removeGuest(),
    async [Symbol.asyncDispose]() {
      removeGuest()
      for (const server of servers.toReversed()) await server[Symbol.asyncDispose]()
      runScript('for dir in "$@"; do ! mountpoint -q "$dir" || umount "$dir"; done', libvirtDirs)
    },
  }
}

async function startLibvirt(dir: string): Promise<readonly Server[]> {
  runScript(
    `own="$1"; shift
    for dir in "$@"; do
      mkdir -p "$dir" "$own/libvirt$dir"; cp -a "$dir/." "$own/libvirt$dir/" 2>/dev/null || true
      mount --bind "$own/libvirt$dir" "$dir"
    done
    rm -rf /run/libvirt/*
    printf '%s\\n' 'security_driver="none"' 'user="root"' 'group="root"' 'namespaces=[]' 'cgroup_controllers=[]' \\
      'remember_owner=0' >>/etc/libvirt/qemu.conf`,
    [dir, ...libvirtDirs],
  )
  const quiet = (command: string) => ['bash', '-c', `exec ${command} >>"$0" 2>&1`, join(dir, 'libvirt.log')]
  const log = await startServer(quiet('virtlogd'), '/run/libvirt/virtlogd-sock')
  return [log, await startServer(quiet('libvirtd'), '/run/libvirt/libvirt-sock')]
}

const domainXml = (
  image: string,
) => `<domain type='qemu'><name>${domain}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os>
<devices><disk type='file' device='disk'><driver name='qemu' type='qcow2' discard='unmap'/><source file='${image}'/>
<target dev='vda' bus='virtio'/></disk></devices></domain>
`

/** By qemu-io on the disk's own backend: the only way to write that needs no guest. */
function writeThroughGuest({ source, changedBlocks }: Job, dir: string): void {
  const folder = join(dir, 'blocks')
  mkdirSync(folder, { recursive: true })
  const commands = changedBlocks.map((index) => {
    const file = join(folder, String(index))
    writeFileSync(file, readBlock(source, index))
    const write = `write -q -s ${file} ${index * BLOCK_BYTES} ${BLOCK_BYTES}`
    return `qemu-monitor-command ${domain} --hmp 'qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend "${write}"'\n`
  })
  writeFileSync(join(dir, 'commands'), commands.join(''))
  runScript(`${virsh} <"$1/commands" >"$1/commands.log" 2>&1; rm -rf "$1/blocks"; sync -f "$1"`, [dir])
  // A write that went well says nothing; virsh repeats each command behind its prompt.
  const lines = readFileSync(join(dir, 'commands.log'), 'utf8').split('\n')
  const said = lines.filter((line) => line.trim() !== '' && !line.startsWith('virsh #'))
  if (said.length > 0) throw new Error(`the guest's disk could not be changed: ${said[0]}`)
}
