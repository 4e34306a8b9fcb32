/** rsync over OpenSSH, and its plain daemon. A delta is found by rsync itself, in place. */
import { writeFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import { freePort } from '../../lab-kit/configs.ts'
import { waitUntil } from '../../lab-kit/processes.ts'
import { hasChildren } from '../measure.ts'
import { runTimed, startServer } from '../processes.ts'
import type { Job, Tool } from '../workload.ts'
import { type Site, sameImage, startTarget } from './site.ts'

const optionsOf = ({ phase }: Job) => (phase === 'W1' ? '-I -W -S' : '-I --inplace --no-whole-file')

export async function openRsyncSsh(site: Site): Promise<Tool> {
  const ssh = await site.ssh()
  return {
    name: 'rsync-ssh',
    workloads: ['W1-encrypted', 'W2'],
    encrypted: true,
    prepare: async (job) => startTarget(job),
    pids: () => [ssh.pid],
    run: (job) =>
      runTimed(`rsync ${optionsOf(job)} -e "$1" "$2" "127.0.0.1:$3" && sync "$3"`, [
        ssh.command,
        job.source,
        job.target,
      ]),
    settle: () => ssh.settle(),
    identical: async (job) => sameImage(job.target, job.source),
    async [Symbol.asyncDispose]() {},
  }
}

const settleTimeoutMs = 10_000

export async function openRsyncDaemon(site: Site): Promise<Tool> {
  const port = await freePort()
  const config = join(site.folder('rsync-daemon'), 'rsyncd.conf')
  const { uid, gid } = userInfo()
  writeFileSync(
    config,
    `port = ${port}\naddress = 127.0.0.1\nuse chroot = no\nlog file = /dev/null\n[root]\npath = /\nread only = no\n` +
      `uid = ${uid}\ngid = ${gid}\n`,
  )
  const server = await startServer(['rsync', '--daemon', '--no-detach', `--config=${config}`], port)
  return {
    name: 'rsync-daemon',
    workloads: ['W1-plain', 'W2'],
    encrypted: false,
    prepare: async (job) => startTarget(job),
    pids: () => [server.pid],
    run: (job) =>
      runTimed(`rsync ${optionsOf(job)} "$1" "rsync://127.0.0.1:${port}/root$2" && sync "$2"`, [
        job.source,
        job.target,
      ]),
    async settle() {
      await waitUntil(() => !hasChildren(server.pid), settleTimeoutMs, 20)
    },
    identical: async (job) => sameImage(job.target, job.source),
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  }
}
