/** A libvirtd of its own for tests, with guests that run. */
import { execFileSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { hasTool } from '../tools.ts'
import { eventually } from './eventually.ts'
import { NOBODY, PrivateLibvirtd } from './private-libvirtd.ts'

/** Where guests write how often they have written. */
export const COUNTER_OFFSET_BYTES = 0

const isRoot = process.getuid?.() === 0

/** Every tool that it needs. */
export function hasLibvirt(): boolean {
  return ['virsh', 'libvirtd', 'qemu-system-x86_64', 'qemu-io', 'apt-get'].every((tool) => hasTool(tool))
}

export interface TestDisk {
  readonly sizeBytes: number
  readonly format: 'raw' | 'qcow2'
  /** Else it is empty. */
  readonly fileSystem?: 'ext4'
}

export class TestLibvirt implements AsyncDisposable {
  readonly dir: string
  readonly guestDir = guestFolder()
  readonly #daemon: PrivateLibvirtd

  static async start(): Promise<TestLibvirt> {
    const libvirt = new TestLibvirt()
    buildGuest(libvirt.guestDir)
    await libvirt.startDaemon()
    return libvirt
  }

  private constructor() {
    // Short: a socket's path has at most 107 bytes.
    this.dir = mkdtempSync(join(tmpdir(), 'hs-lv-'))
    chmodSync(this.dir, 0o711)
    mkdirSync(join(this.dir, 'images'))
    this.#daemon = new PrivateLibvirtd(this.dir, 'session')
    this.giveAway()
  }

  get uri(): string {
    return this.#daemon.uri
  }

  /** What was made in the folder belongs to whoever QEMU runs as. */
  giveAway(): void {
    if (isRoot) execFileSync('chown', ['-R', `${NOBODY}:${NOBODY}`, this.dir])
  }

  startDaemon(): Promise<void> {
    return this.#daemon.start()
  }

  killDaemon(): Promise<void> {
    return this.#daemon.kill()
  }

  virsh(...args: string[]): Promise<string> {
    return this.#daemon.virsh(...args)
  }

  async define(options: {
    readonly name: string
    readonly disks: readonly TestDisk[]
    /** shared/testing/guest/guest-init says what there is. */
    readonly role?: string
  }): Promise<TestGuest> {
    const { name, disks, role } = options
    const guest = new TestGuest(this, {
      name,
      disks: disks.map((disk, i) => ({ ...disk, path: this.#image(name, i) })),
    })
    for (const disk of guest.disks) makeImage(disk)
    const xml = join(this.dir, `${name}.xml`)
    const { guestDir } = this
    writeFileSync(
      xml,
      domainXml({
        name,
        disks: guest.disks,
        guestDir,
        console: guest.consolePath,
        ...(role ? { role } : {}),
      }),
    )
    this.giveAway()
    await this.virsh('define', xml)
    guest.uuid = (await this.virsh('domuuid', name)).trim()
    return guest
  }

  #image(name: string, index: number): string {
    return join(this.dir, 'images', `${name}-${index}.img`)
  }

  /** Whatever a test left running. */
  stopGuests(): Promise<void> {
    return this.#daemon.stopGuests()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stopGuests()
    await this.killDaemon()
    rmSync(this.dir, { recursive: true, force: true })
  }
}

export class TestGuest {
  readonly name: string
  readonly disks: readonly (TestDisk & { readonly path: string })[]
  uuid = ''
  readonly #libvirt: TestLibvirt

  constructor(libvirt: TestLibvirt, { name, disks }: Pick<TestGuest, 'name' | 'disks'>) {
    this.#libvirt = libvirt
    this.name = name
    this.disks = disks
  }

  get consolePath(): string {
    return join(this.#libvirt.dir, `${this.name}.console`)
  }

  /** Until it writes: n to the first disk, then to the second, little-endian at `COUNTER_OFFSET_BYTES`. */
  async start(): Promise<void> {
    await this.#libvirt.virsh('start', this.name)
    await this.progress()
  }

  async stop(): Promise<void> {
    await this.#libvirt.virsh('destroy', this.name)
  }

  /** As `virsh destroy`, but QEMU stores its bitmaps. */
  async quit(): Promise<void> {
    await this.#libvirt.virsh('qemu-monitor-command', this.name, '{"execute":"quit"}').catch(() => {})
    await eventually(
      'QEMU ends',
      async () => (await this.#libvirt.virsh('domstate', this.name)).trim() === 'shut off',
    )
  }

  /** As the kernel does when memory runs out. */
  async killQemu(): Promise<void> {
    process.kill(
      Number(
        readFileSync(join(this.#libvirt.dir, 'run', 'libvirt', 'qemu', 'run', `${this.name}.pid`), 'utf8'),
      ),
      'SIGKILL',
    )
    await eventually(
      'QEMU ends',
      async () => (await this.#libvirt.virsh('domstate', this.name)).trim() === 'shut off',
    )
  }

  /** The last number it said. */
  counter(): number {
    const said = existsSync(this.consolePath) ? readFileSync(this.consolePath, 'latin1') : ''
    return Number(/GUEST n=(\d+)\s*\n(?!.*GUEST n=)/s.exec(said)?.[1] ?? 0)
  }

  async progress(): Promise<void> {
    const from = this.counter()
    await eventually(`guest ${this.name} writes`, () => this.counter() > from + 1)
  }

  /** What its agent answers. */
  async ask(execute: string): Promise<unknown> {
    const answer = await this.#libvirt.virsh('qemu-agent-command', this.name, JSON.stringify({ execute }))
    return (JSON.parse(answer) as { return: unknown }).return
  }

  /** Started, and its agent answers. */
  async startWithAgent(): Promise<void> {
    await this.#libvirt.virsh('start', this.name)
    await eventually(`the agent of ${this.name} answers`, () =>
      this.ask('guest-ping').then(
        () => true,
        () => false,
      ),
    )
  }

  /** While it is off. */
  write(diskIndex: number, offsetBytes: number, bytes: Buffer): void {
    const disk = this.disks[diskIndex]
    if (!disk) throw new Error(`there is no disk ${diskIndex}`)
    const pattern = join(this.#libvirt.dir, 'pattern')
    writeFileSync(pattern, bytes)
    execFileSync(
      'qemu-io',
      ['-f', disk.format, '-c', `write -s ${pattern} ${offsetBytes} ${bytes.length}`, disk.path],
      {
        stdio: 'pipe',
      },
    )
  }
}

function makeImage({ path, format, sizeBytes, fileSystem }: TestDisk & { readonly path: string }): void {
  if (fileSystem === undefined) {
    execFileSync('qemu-img', ['create', '-q', '-f', format, path, String(sizeBytes)])
    return
  }
  const raw = `${path}.raw`
  const env = { ...process.env, PATH: `${process.env['PATH']}:/usr/sbin:/sbin` }
  execFileSync('mke2fs', ['-q', '-t', fileSystem, raw, `${sizeBytes / 1024}k`], { stdio: 'pipe', env })
  execFileSync('qemu-img', ['convert', '-O', format, raw, path])
  rmSync(raw)
}

/** Built once for all tests of this checkout. */
export function guestFolder(): string {
  return join(import.meta.dirname, '..', '..', '..', 'node_modules', '.cache', 'hotsite-guest')
}

/** Throws what the build says. */
export function buildGuest(dir: string): void {
  execFileSync(join(import.meta.dirname, '..', 'guest', 'build-guest.sh'), [dir], { stdio: 'pipe' })
}

export interface DomainOptions {
  readonly name: string
  readonly disks: readonly { readonly path: string; readonly format: string }[]
  /** shared/testing/guest/guest-init says what there is. */
  readonly role?: string
  readonly guestDir: string
  /** A file; `screen`: a display with the console on it; absent: it says nothing. */
  readonly console?: string
  /** An element as libvirt has it. */
  readonly nic?: string
  readonly accel?: 'tcg' | 'kvm'
}

/** Without a network, a display or anything else that takes time to start. */
export function domainXml(options: DomainOptions): string {
  const { name, disks, role = 'counter', guestDir, console, nic = '', accel = 'tcg' } = options
  const diskElements = disks.map(
    ({ path, format }, i) =>
      `<disk type='file' device='disk'><driver name='qemu' type='${format}'/><source file='${path}'/>` +
      `<target dev='vd${String.fromCharCode(97 + i)}' bus='virtio'/></disk>`,
  )
  const isOnScreen = console === 'screen'
  const output = isOnScreen
    ? "<video><model type='vga'/></video>"
    : console && `<serial type='file'><source path='${console}'/></serial>`
  return `<domain type='${accel === 'kvm' ? 'kvm' : 'qemu'}'>
  <name>${name}</name><memory unit='MiB'>128</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type><kernel>${guestDir}/vmlinuz</kernel>
    <initrd>${guestDir}/initrd.gz</initrd><cmdline>console=${isOnScreen ? 'tty0' : 'ttyS0'} quiet hotsite.role=${role}</cmdline></os>
  <features><acpi/></features>
  <on_poweroff>destroy</on_poweroff><on_reboot>destroy</on_reboot>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    ${diskElements.join('\n    ')}
    ${output ?? ''}${nic}
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <controller type='usb' model='none'/><memballoon model='none'/>
  </devices>
</domain>`
}
