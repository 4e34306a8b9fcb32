/**
 * A libvirtd of its own for tests, with guests that run: in session mode, everything in one folder, nothing of the machine's
 * own libvirt touched. Under root it runs as nobody, for a libvirtd of root is that of the whole machine.
 */
import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { systemClock } from '../../clock.ts'
import { hasTool } from '../tools.ts'

/** Where guests write how often they have written. */
export const COUNTER_OFFSET_BYTES = 0

const NOBODY = 65_534
/** An emulated guest boots in five seconds, and in a minute on a machine that is busy with other tests. */
const PATIENCE_MS = 150_000
const isRoot = process.getuid?.() === 0

/** Every tool that it needs. */
export function hasLibvirt(): boolean {
  return ['virsh', 'libvirtd', 'qemu-system-x86_64', 'qemu-io', 'apt-get'].every((tool) => hasTool(tool))
}

export interface TestDisk {
  readonly sizeBytes: number
  readonly format: 'raw' | 'qcow2'
}

export class TestLibvirt implements AsyncDisposable {
  readonly dir: string
  readonly uri: string
  readonly guestDir = guestFolder()
  #daemon: ChildProcess | undefined

  static async start(): Promise<TestLibvirt> {
    const libvirt = new TestLibvirt()
    execFileSync(join(import.meta.dirname, '..', 'guest', 'build-guest.sh'), [libvirt.guestDir], {
      stdio: 'pipe',
    })
    await libvirt.startDaemon()
    return libvirt
  }

  private constructor() {
    // Short: a socket's path has at most 107 bytes.
    this.dir = mkdtempSync(join(tmpdir(), 'hs-lv-'))
    chmodSync(this.dir, 0o711)
    for (const name of ['run', 'config/libvirt', 'cache', 'data', 'images'])
      mkdirSync(join(this.dir, name), { recursive: true })
    writeFileSync(
      join(this.dir, 'config', 'libvirt', 'qemu.conf'),
      'security_driver = "none"\nnamespaces = []\ncgroup_controllers = []\nremember_owner = 0\nstdio_handler = "file"\n',
    )
    this.giveAway()
    this.uri = `qemu+unix:///session?socket=${this.#socket}`
  }

  get #socket(): string {
    return join(this.dir, 'run', 'libvirt', 'libvirt-sock')
  }

  /** What was made in the folder belongs to whoever QEMU runs as. */
  giveAway(): void {
    if (isRoot) execFileSync('chown', ['-R', `${NOBODY}:${NOBODY}`, this.dir])
  }

  async startDaemon(): Promise<void> {
    const as = isRoot ? ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups'] : []
    const [program = 'libvirtd', ...args] = [...as, 'libvirtd']
    const home = (name: string) => join(this.dir, name)
    rmSync(this.#socket, { force: true })
    this.#daemon = spawn(program, args, {
      stdio: 'ignore',
      cwd: this.dir,
      env: {
        PATH: `${process.env['PATH']}:/usr/sbin:/sbin`,
        HOME: this.dir,
        XDG_RUNTIME_DIR: home('run'),
        XDG_CONFIG_HOME: home('config'),
        XDG_CACHE_HOME: home('cache'),
        XDG_DATA_HOME: home('data'),
      },
    })
    await eventually('libvirtd answers', () => existsSync(this.#socket))
    await eventually(
      'libvirtd answers',
      async () =>
        await this.virsh('list').then(
          () => true,
          () => false,
        ),
    )
  }

  async killDaemon(): Promise<void> {
    const daemon = this.#daemon
    if (!daemon || daemon.exitCode !== null || daemon.signalCode !== null) return
    const gone = once(daemon, 'exit')
    daemon.kill('SIGKILL')
    await gone
  }

  async virsh(...args: string[]): Promise<string> {
    return (await promisify(execFile)('virsh', ['-q', '-c', this.uri, ...args])).stdout
  }

  async define(options: { readonly name: string; readonly disks: readonly TestDisk[] }): Promise<TestGuest> {
    const { name, disks } = options
    const guest = new TestGuest(this, {
      name,
      disks: disks.map((disk, i) => ({ ...disk, path: this.#image(name, i) })),
    })
    for (const { path, format, sizeBytes } of guest.disks)
      execFileSync('qemu-img', ['create', '-q', '-f', format, path, String(sizeBytes)])
    const xml = join(this.dir, `${name}.xml`)
    const { guestDir } = this
    writeFileSync(xml, domainXml({ name, disks: guest.disks, guestDir, consolePath: guest.consolePath }))
    this.giveAway()
    await this.virsh('define', xml)
    guest.uuid = (await this.virsh('domuuid', name)).trim()
    return guest
  }

  #image(name: string, index: number): string {
    return join(this.dir, 'images', `${name}-${index}.img`)
  }

  /** Whatever a test left running. */
  async stopGuests(): Promise<void> {
    const running = await this.virsh('list', '--name').catch(() => '')
    for (const name of running.split('\n').filter(Boolean)) await this.virsh('destroy', name).catch(() => {})
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

/** Waits for a condition of guests and daemons, never for a time. */
export async function eventually(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const deadlineMs = systemClock.monotonicMs() + PATIENCE_MS
  while (!(await holds())) {
    if (systemClock.monotonicMs() > deadlineMs) throw new Error(`still not: ${what}`)
    await systemClock.sleep(20)
  }
}

/** Built once for all tests of this checkout. */
function guestFolder(): string {
  return join(import.meta.dirname, '..', '..', '..', 'node_modules', '.cache', 'hotsite-guest')
}

export interface DomainOptions {
  readonly name: string
  readonly disks: readonly { readonly path: string; readonly format: string }[]
  /** shared/testing/guest/guest-init says what there is. */
  readonly role?: string
  readonly guestDir: string
  /** Else it says nothing. */
  readonly consolePath?: string
  /** An element as libvirt has it. */
  readonly nic?: string
}

/** Without a network, a display or anything else that takes time to start. */
export function domainXml({
  name,
  disks,
  role = 'counter',
  guestDir,
  consolePath,
  nic = '',
}: DomainOptions): string {
  const diskElements = disks.map(
    ({ path, format }, i) =>
      `<disk type='file' device='disk'><driver name='qemu' type='${format}'/><source file='${path}'/>` +
      `<target dev='vd${String.fromCharCode(97 + i)}' bus='virtio'/></disk>`,
  )
  const serial =
    consolePath === undefined ? '' : `<serial type='file'><source path='${consolePath}'/></serial>`
  return `<domain type='qemu'>
  <name>${name}</name><memory unit='MiB'>128</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type><kernel>${guestDir}/vmlinuz</kernel>
    <initrd>${guestDir}/initrd.gz</initrd><cmdline>console=ttyS0 quiet hotsite.role=${role}</cmdline></os>
  <features><acpi/></features>
  <on_poweroff>destroy</on_poweroff><on_reboot>destroy</on_reboot>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    ${diskElements.join('\n    ')}
    ${serial}${nic}
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <controller type='usb' model='none'/><memballoon model='none'/>
  </devices>
</domain>`
}
