/** blocksync-fast over ssh with digests kept at the source (XXH3, not cryptographic). In no Debian release: measured if on PATH. */
import { join } from 'node:path'
import { runScript, runTimed } from '../processes.ts'
import type { Tool } from '../workload.ts'
import { type Site, sameImage, startTarget } from './site.ts'

export async function openBlocksyncFast(site: Site): Promise<Tool> {
  const ssh = await site.ssh()
  const digests = join(site.folder('blocksync-fast'), 'digests')
  const how = '-b 64K -a XXH3'
  return {
    name: 'blocksync-fast',
    workloads: ['W2'],
    encrypted: true,
    async prepare(job) {
      startTarget(job)
      runScript(`rm -f "$2"; blocksync-fast -s "$1" ${how} --make-digest -f "$2" >/dev/null`, [
        job.before,
        digests,
      ])
    },
    pids: () => [ssh.pid],
    run: (job) =>
      runTimed(
        `blocksync-fast -s "$1" ${how} -f "$2" --make-delta 2>/dev/null | $4 127.0.0.1 "blocksync-fast -d '$3' --apply-delta >&2 && sync '$3'" 2>/dev/null`,
        [job.source, digests, job.target, ssh.command],
      ),
    settle: () => ssh.settle(),
    identical: async (job) => sameImage(job.target, job.source),
    async [Symbol.asyncDispose]() {},
  }
}
