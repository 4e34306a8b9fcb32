/**
 * Two agents without a coordinator, everything on as always: encryption, the channel's MAC, verification at both ends,
 * the durable buffer, signed and attested points. W2 is a scan; for W3 the agent kit's tracker reports the extents.
 */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { vmsDir } from '#shared/folder/layout.ts'
import { writeVm } from '#shared/folder/vm-file.ts'
import { diskId, fabricVmId } from '#shared/ids.ts'
import { startAgentPair } from '../../agent-kit/agent-pair.ts'
import { startTracking, stopTracking } from '../../agent-kit/change-log.ts'
import { ReplicatedVm } from '../../agent-kit/replicated-vm.ts'
import { trackerKnows } from '../../agent-kit/tracking-hypervisor.ts'
import { waitUntil } from '../../lab-kit/processes.ts'
import { untilResting } from '../measure.ts'
import type { Job, Tool } from '../workload.ts'
import { type Site, sameImage } from './site.ts'

const host = 'source-host'
const disk = 'disk0'
const policy = { retentionPoints: 1 }
const releaseTimeoutMs = 20_000

/** The disk of the VM, which is the source of every tool. */
export const sourceDisk = (dir: string): string =>
  join(vmsDir(join(dir, 'fabric'), host), 'bench', `${disk}.img`)

export function makeFabric(dir: string): void {
  mkdirSync(dirname(sourceDisk(dir)), { recursive: true })
  writeFileSync(join(dir, 'fabric', 'fabric.yaml'), 'vmmServer: bench\n')
}

export async function openHotsite(site: Site): Promise<Tool> {
  const pair = await startAgentPair({
    dir: join(site.dir, 'agents'),
    fabricRoot: join(site.dir, 'fabric'),
    sourceHost: host,
    targetHost: 'target-host',
  })
  const pids = () => [pair.source.pid, pair.target.pid]
  let current: { round: number; name: string; vm: ReplicatedVm } | undefined
  let started = false

  /** A VM for each round, so that each full copy has a fresh target. */
  const vmOf = async (job: Job) => {
    if (current?.round === job.round) return current
    await current?.vm.remove()
    const name = `bench-${job.round}`
    describeVm(job.source, name)
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

function describeVm(source: string, name: string): void {
  if (!existsSync(source)) throw new Error(`no disk at ${source}`)
  writeVm(dirname(source), {
    id: fabricVmId.parse(name),
    name: 'bench',
    generation: 1,
    operatingSystem: '',
    memoryBytes: 0,
    cpuCount: 1,
    disks: [{ id: diskId.parse(disk), name: disk, file: `${disk}.img`, boot: true }],
    nics: [],
    classification: null,
    command: ['true'],
  })
}
