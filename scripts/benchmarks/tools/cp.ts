/** The limit of this machine for W1: a local copy. */
import { runTimed } from '../processes.ts'
import type { Tool } from '../workload.ts'
import { sameImage, startTarget } from './site.ts'

export async function openCp(): Promise<Tool> {
  return {
    name: 'cp',
    workloads: ['W1-plain'],
    encrypted: false,
    onWire: false,
    prepare: async (job) => startTarget(job),
    pids: () => [],
    run: ({ source, target }) => runTimed('cp --sparse=always "$1" "$2" && sync "$2"', [source, target]),
    identical: async (job) => sameImage(job.target, job.source),
    async [Symbol.asyncDispose]() {},
  }
}
