/**
 * The limit for W3: the changed extents through one TLS 1.3 connection into the target file, one fsync, one
 * acknowledgement. Both processes run before the clock starts, as our agents do; the connection is made under it.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { BLOCK_BYTES } from '#shared/blocks/block.ts'
import { stop } from '../processes.ts'
import type { Tool } from '../workload.ts'
import type { BareJob, BareRole } from './bare-end.ts'
import { type Site, sameImage, startTarget } from './site.ts'

export async function openBare(site: Site): Promise<Tool> {
  const keys = site.tlsKeys()
  const receiver = startEnd({ role: 'receiver', keys })
  const [{ port }] = (await once(receiver, 'message')) as [{ port: number }]
  const sender = startEnd({ role: 'sender', keys, port })
  await once(sender, 'message')
  return {
    name: 'bare',
    workloads: ['W3'],
    encrypted: true,
    async prepare(job) {
      startTarget(job)
      receiver.send({ path: job.target, extents: [] } satisfies BareJob)
      await once(receiver, 'message')
    },
    pids: () => [receiver.pid ?? 0, sender.pid ?? 0],
    async run({ source, changedBlocks }) {
      sender.send({ path: source, extents: extentsOf(changedBlocks) } satisfies BareJob)
      await once(sender, 'message')
      return 0
    },
    identical: async (job) => sameImage(job.target, job.source),
    async [Symbol.asyncDispose]() {
      await stop(sender)
      await stop(receiver)
    },
  }
}

function startEnd(role: BareRole): ChildProcess {
  const child = fork(fileURLToPath(new URL('./bare-end.ts', import.meta.url)), [JSON.stringify(role)])
  child.once('exit', (code) => {
    if (code) process.stderr.write(`bare ${role.role} ended with ${code}\n`)
  })
  return child
}

/** Neighbouring blocks travel as one. */
function extentsOf(blocks: readonly number[]): BareJob['extents'] {
  const extents: { offsetBytes: number; lengthBytes: number }[] = []
  for (const index of blocks) {
    const last = extents.at(-1)
    if (last && last.offsetBytes + last.lengthBytes === index * BLOCK_BYTES) last.lengthBytes += BLOCK_BYTES
    else extents.push({ offsetBytes: index * BLOCK_BYTES, lengthBytes: BLOCK_BYTES })
  }
  return extents
}
