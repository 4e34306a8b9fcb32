/** An OpenSSH server of our own on a loopback port, for the peers that go over ssh; aes128-gcm, its fastest cipher here. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import { freePort } from '../lab-kit/configs.ts'
import { waitUntil } from '../lab-kit/processes.ts'
import { hasChildren } from './measure.ts'
import { runScript, type Server, startServer } from './processes.ts'

const settleTimeoutMs = 20_000

export interface SshServer extends Server {
  /** The client with its options, as a shell wants it: `${command} 127.0.0.1 true`. */
  readonly command: string
  /** Until all sessions have ended and their CPU seconds are the server's. */
  settle(): Promise<void>
}

export async function startSshServer(dir: string): Promise<SshServer> {
  mkdirSync(dir, { recursive: true })
  const port = await freePort()
  runScript(
    `for key in host user; do ssh-keygen -q -t ed25519 -N '' -f "$1/$key"; done; cp "$1/user.pub" "$1/authorized"`,
    [dir],
  )
  if (process.getuid?.() === 0) mkdirSync('/run/sshd', { recursive: true })
  const config = [
    `Port ${port}`,
    'ListenAddress 127.0.0.1',
    `HostKey ${join(dir, 'host')}`,
    `AuthorizedKeysFile ${join(dir, 'authorized')}`,
    'PasswordAuthentication no',
    'StrictModes no',
    'PermitRootLogin prohibit-password',
    'UsePAM no',
    `SetEnv PATH=${process.env['PATH'] ?? '/usr/bin:/bin'}`,
    `PidFile ${join(dir, 'sshd.pid')}`,
  ]
  writeFileSync(join(dir, 'sshd_config'), `${config.join('\n')}\n`)
  // sshd insists on being started by its absolute path.
  const sshd = runScript('command -v sshd').trim()
  const server = await startServer([sshd, '-D', '-f', join(dir, 'sshd_config')], port)
  const options = [
    `-p ${port} -i ${join(dir, 'user')} -l ${userInfo().username} -c aes128-gcm@openssh.com`,
    '-o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR',
  ]
  return {
    ...server,
    command: `ssh -F none ${options.join(' ')}`,
    async settle() {
      await waitUntil(() => !hasChildren(server.pid), settleTimeoutMs, 20)
    },
  }
}
