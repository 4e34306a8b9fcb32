/** The peer: rsync over OpenSSH (aes128-gcm), a server of our own on a loopback port; and its plain daemon. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { createConnection } from 'node:net'
import { join } from 'node:path'
import { freePort } from '../lab-kit/configs.ts'
import { waitUntil } from '../lab-kit/processes.ts'
import { cpuSecondsOf, type Measurement, measure } from './measure.ts'

export interface RsyncPeer extends AsyncDisposable {
  readonly tool: 'rsync-ssh' | 'rsync-daemon'
  /** full: a fresh target. delta: only what differs, into the target as it is. Ends with fsync of the target. */
  copy(kind: 'full' | 'delta', source: string, target: string): Promise<Measurement>
}

const has = (command: string) =>
  spawnSync('sh', ['-c', `command -v ${command}`], { stdio: 'ignore' }).status === 0

export async function openRsyncPeers(dir: string): Promise<readonly RsyncPeer[]> {
  if (!has('rsync')) return []
  mkdirSync(dir, { recursive: true })
  return [...(has('sshd') && has('ssh') ? [await openOverSsh(dir)] : []), await openDaemon(dir)]
}

async function openOverSsh(dir: string): Promise<RsyncPeer> {
  const port = await freePort()
  for (const key of ['host', 'user'])
    execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', join(dir, key)])
  execFileSync('cp', [join(dir, 'user.pub'), join(dir, 'authorized')])
  mkdirSync('/run/sshd', { recursive: true })
  const serverConfig = [
    `Port ${port}`,
    'ListenAddress 127.0.0.1',
    `HostKey ${join(dir, 'host')}`,
    `AuthorizedKeysFile ${join(dir, 'authorized')}`,
    'PasswordAuthentication no',
    'StrictModes no',
    'PermitRootLogin prohibit-password',
    'UsePAM no',
    `PidFile ${join(dir, 'sshd.pid')}`,
  ]
  writeFileSync(join(dir, 'sshd_config'), `${serverConfig.join('\n')}\n`)
  const sshd = execFileSync('sh', ['-c', 'command -v sshd'], { encoding: 'utf8' }).trim()
  const server = await startServer([sshd, '-D', '-f', join(dir, 'sshd_config')], port)
  const shell = `ssh -p ${port} -i ${join(dir, 'user')} -c aes128-gcm@openssh.com -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR`
  return peer('rsync-ssh', server, ['-e', shell], (target) => `127.0.0.1:${target}`)
}

async function openDaemon(dir: string): Promise<RsyncPeer> {
  const port = await freePort()
  const config = join(dir, 'rsyncd.conf')
  writeFileSync(
    config,
    `port = ${port}\naddress = 127.0.0.1\nuse chroot = no\nlog file = /dev/null\n[root]\npath = /\nread only = no\nuid = ${process.getuid?.() ?? 0}\ngid = ${process.getgid?.() ?? 0}\n`,
  )
  const server = await startServer(['rsync', '--daemon', '--no-detach', `--config=${config}`], port)
  return peer('rsync-daemon', server, [], (target) => `rsync://127.0.0.1:${port}/root${target}`)
}

async function startServer(argv: readonly string[], port: number): Promise<ChildProcess> {
  const server = spawn(argv[0] ?? '', argv.slice(1), { stdio: 'ignore' })
  const listens = () =>
    new Promise<boolean>((resolve) => {
      const socket = createConnection(port, '127.0.0.1')
      socket.once('connect', () => resolve(socket.destroy() !== undefined))
      socket.once('error', () => resolve(false))
    })
  if (!(await waitUntil(listens, 10_000))) throw new Error(`${argv[0]} does not listen on ${port}`)
  return server
}

function peer(
  tool: RsyncPeer['tool'],
  server: ChildProcess,
  options: readonly string[],
  address: (target: string) => string,
): RsyncPeer {
  return {
    tool,
    copy: (kind, source, target) => {
      const how = kind === 'full' ? ['-I', '-W', '-S'] : ['-I', '--inplace', '--no-whole-file']
      return measure(
        () => cpuSecondsOf(server.pid ?? 0),
        () => timedRun(['rsync', ...how, ...options, source, address(target)], target),
      )
    },
    async [Symbol.asyncDispose]() {
      server.kill('SIGTERM')
      await new Promise((resolve) =>
        server.exitCode === null ? server.once('exit', resolve) : resolve(undefined),
      )
    },
  }
}

/** CPU seconds of the client and its children, by bash's own clock. */
function timedRun(argv: readonly string[], target: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(
      'bash',
      [
        '-c',
        'TIMEFORMAT="%U %S"; target=$1; shift; time { "$@" && sync "$target"; }',
        'bash',
        target,
        ...argv,
      ],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    )
    let err = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      err += text
    })
    child.once('error', reject)
    child.once('close', (code) => {
      if (code !== 0) return reject(new Error(`${argv.join(' ')} failed: ${err}`))
      const [user, system] = err.trim().split('\n').at(-1)?.split(' ') ?? []
      resolve(Number(user) + Number(system))
    })
  })
}
