/**
 * Two agents without a coordinator, everything on as always: encryption, the channel's MAC, verification at both ends,
 * the durable buffer, signed and attested points. W2 is a scan; for W3 the agent kit's tracker reports the extents.
 */
import { startTracking, stopTracking } from '../../agent-kit/change-log.ts'
import { ReplicatedVm } from '../../agent-kit/replicated-vm.ts'
import { trackerKnows } from '../../agent-kit/tracking-hypervisor.ts'
import { waitUntil } from '../../lab-kit/processes.ts'
import { describeVm, diskPath, startBenchPair } from '../fabric.ts'
import { untilResting } from '../measure.ts'
import type { Job, Tool } from '../workload.ts'
import { type Site, sameImage } from './site.ts'

const disk = 'disk0'
const policy = { retentionPoints: 1 }
const releaseTimeoutMs = 20_000

/** The disk of the VM, which is the source of every tool. */
export const sourceDisk = (dir: string): string => diskPath(dir, 'bench', disk)

export async function openHotsite(site: Site): Promise<Tool> {
  const pair = await startBenchPair(site.dir)
  const pids = () => [pair.source.pid, pair.target.pid]
  let current: { round: number; name: string; vm: ReplicatedVm } | undefined
  let started = false

  /** A VM for each round, so that each full copy has a fresh target. */
  const vmOf = async (job: Job) => {
    if (current?.round === job.round) return current
    await current?.vm.remove()
    const name = `bench-${job.round}`
    describeVm(site.dir, { folder: 'bench', id: name, disks: [disk] })
    const vm = new ReplicatedVm(pair, name, [{ diskId: disk, sizeBytes: job.sizeBytes }])
    current = { round: job.round, name, vm }
    started = false
    return current
  }
  return {
    name: 'hotsite',
    workloads: ['W1-encrypted', 'W1-plain', 'W2', 'W3'],
    encrypted: true,
    async beforeChange(job) {
      const { name, vm } = await vmOf(job)
      if (!started) await vm.start(policy)
      started = true
      if (job.phase !== 'W3') return
      startTracking(job.source)
      await vm.copyNow()
      const knows = () => trackerKnows({ dataDir: pair.source.dir, vm: name, disk, path: job.source })
      if (!(await waitUntil(knows, releaseTimeoutMs, 10)))
        throw new Error('the tracker has no base: the copy was not released')
    },
    async prepare(job) {
      await vmOf(job)
      await untilResting(pids())
    },
    pids,
    async run(job) {
      const { vm } = await vmOf(job)
      if (job.phase === 'W1') await vm.start(policy)
      else await vm.copyNow()
      started = true
      return 0
    },
    settle: () => untilResting(pids()),
    async identical(job) {
      const { vm } = await vmOf(job)
      return sameImage(await vm.newestLayer(disk), job.source, 'qcow2')
    },
    async finish(job) {
      if (job.phase === 'W3') stopTracking(job.source)
    },
    [Symbol.asyncDispose]: () => pair[Symbol.asyncDispose](),
  }
}
