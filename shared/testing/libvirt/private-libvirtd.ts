/** A libvirtd of our own, everything of it in one folder; nothing of the machine's own libvirt is touched. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { eventually } from './eventually.ts'

export const NOBODY = 65_534
const isRoot = process.getuid?.() === 0

/**
 * session: as a user has it; under root as nobody, for a libvirtd of root is always a system one.
 * system: as a host has it, QEMU as the user that the distribution made for it; its folders are put over those of the machine in a mount namespace of its own.
 */
export type LibvirtMode = 'session' | 'system'

/** Confinement and control groups are the host's; what is not is the daemon's. */
const QEMU_CONF = [
  'security_driver = "none"',
  'namespaces = []',
  'cgroup_controllers = []',
  'remember_owner = 0',
  'stdio_handler = "file"',
]

/** Folders of a system libvirtd, by name in ours. */
const SYSTEM_FOLDERS = {
  run: '/run/libvirt',
  lib: '/var/lib/libvirt',
  cache: '/var/cache/libvirt',
  log: '/var/log/libvirt',
  etc: '/etc/libvirt',
}

export class PrivateLibvirtd {
  readonly dir: string
  readonly mode: LibvirtMode
  #process: ChildProcess | undefined

  /** `dir`: an empty folder with a short path, for a socket's has at most 107 bytes. */
  constructor(dir: string, mode: LibvirtMode) {
    this.dir = dir
    this.mode = mode
    if (mode === 'session') this.#prepareSession()
    else this.#prepareSystem()
  }

  get uri(): string {
    return `qemu+unix:///${this.mode}?socket=${this.#socket}`
  }

  get #socket(): string {
    return this.mode === 'session'
      ? join(this.dir, 'run', 'libvirt', 'libvirt-sock')
      : join(this.dir, 'run', 'libvirt-sock')
  }

  #prepareSession(): void {
    for (const name of ['run', 'config/libvirt', 'cache', 'data'])
      mkdirSync(join(this.dir, name), { recursive: true })
    writeFileSync(join(this.dir, 'config', 'libvirt', 'qemu.conf'), `${QEMU_CONF.join('\n')}\n`)
  }

  #prepareSystem(): void {
    for (const name of [...Object.keys(SYSTEM_FOLDERS), 'etc/qemu', 'lib/qemu', 'log/qemu'])
      mkdirSync(join(this.dir, name), { recursive: true })
    writeFileSync(join(this.dir, 'etc', 'qemu.conf'), `${QEMU_CONF.join('\n')}\n`)
    writeFileSync(join(this.dir, 'etc', 'libvirtd.conf'), 'auth_unix_ro = "none"\nauth_unix_rw = "none"\n')
  }

  async start(): Promise<void> {
    rmSync(this.#socket, { force: true })
    this.#process = this.mode === 'session' ? this.#spawnSession() : this.#spawnSystem()
    const { stderr } = this.#process
    let said = ''
    stderr?.on('data', (bytes: Buffer) => {
      said = (said + bytes.toString()).slice(-2_000)
    })
    await eventually('libvirtd answers', async () => {
      const { exitCode, signalCode } = this.#process ?? {}
      if (exitCode != null || signalCode != null) throw new Error(`libvirtd ended: ${said}`)
      return existsSync(this.#socket) && (await this.#answers())
    })
  }

  #answers(): Promise<boolean> {
    return this.virsh('list').then(
      () => true,
      () => false,
    )
  }

  #spawnSession(): ChildProcess {
    const as = isRoot ? ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups'] : []
    const [program = 'libvirtd', ...args] = [...as, 'libvirtd']
    const home = (name: string) => join(this.dir, name)
    return spawn(program, args, {
      stdio: ['ignore', 'ignore', 'pipe'],
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
  }

  #spawnSystem(): ChildProcess {
    const mounts = Object.entries(SYSTEM_FOLDERS).map(
      ([name, path]) => `mkdir -p '${path}' && mount --bind '${join(this.dir, name)}' '${path}'`,
    )
    const daemon = `exec libvirtd --config /etc/libvirt/libvirtd.conf --pid-file /run/libvirt/libvirtd.pid`
    const script = [...mounts, daemon].join(' && ')
    return spawn('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', script], {
      stdio: ['ignore', 'ignore', 'pipe'],
      cwd: this.dir,
      env: { PATH: `${process.env['PATH']}:/usr/sbin:/sbin`, LC_ALL: 'C' },
    })
  }

  /** As a crash would: its guests run on. */
  async kill(): Promise<void> {
    const daemon = this.#process
    if (!daemon || daemon.exitCode !== null || daemon.signalCode !== null) return
    const gone = once(daemon, 'exit')
    daemon.kill('SIGKILL')
    await gone
  }

  async virsh(...args: string[]): Promise<string> {
    return (await promisify(execFile)('virsh', ['-q', '-c', this.uri, ...args])).stdout
  }

  async stopGuests(): Promise<void> {
    const running = await this.virsh('list', '--name').catch(() => '')
    for (const name of running.split('\n').filter(Boolean)) await this.virsh('destroy', name).catch(() => {})
  }
}
