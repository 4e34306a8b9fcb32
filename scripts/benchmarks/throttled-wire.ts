/**
 * Bytes on the wire where the link is what limits: a full copy and both deltas under a throttle, against the blocks
 * compressed one by one. Without a throttle the loopback link is faster than any compressor, and blocks rightly go as
 * they are.
 */
import { closeSync, ftruncateSync, openSync } from 'node:fs'
import { type Rng, seededRng } from '#shared/rng.ts'
import { startTracking } from '../agent-kit/change-log.ts'
import { ReplicatedVm } from '../agent-kit/replicated-vm.ts'
import { trackerKnows } from '../agent-kit/tracking-hypervisor.ts'
import { waitUntil } from '../lab-kit/processes.ts'
import { rewriteBlocks } from './disk.ts'
import { describeVm, diskPath, makeFabric, startBenchPair } from './fabric.ts'
import { loopbackBytes, untilResting } from './measure.ts'
import { atMost, type Measure } from './measures.ts'
import { round3 } from './statistics.ts'
import { sameImage } from './tools/site.ts'
import { wireFloorOf } from './wire-floor.ts'
import { type Phase, phases } from './workload.ts'

const throttleBytesPerSecond = 20_000_000
const sizeBytes = 2 ** 30
/** Of 64 KiB: some seconds of the throttle for the full copy, one for a delta. */
const dataBlocks = 1_000
const changedBlocks = 400
const releaseTimeoutMs = 20_000
const vmName = 'throttled'
const disk = 'disk0'

export interface ThrottledWireFigure {
  readonly figure: 'throttled-wire'
  readonly workload: Phase
  readonly throttleBytesPerSecond: number
  readonly seconds: number
  readonly wireBytes: number
  /** Of the changed blocks: as they are, and compressed one by one. */
  readonly dataBytes: number
  readonly compressedBytes: number
  readonly identical: boolean
}

/** `dir`: a folder of its own. Bytes on the wire are those of the loopback interface. */
export async function measureThrottledWire(dir: string): Promise<readonly ThrottledWireFigure[]> {
  const rng = seededRng(3)
  const path = diskPath(dir, vmName, disk)
  makeFabric(dir, [vmName])
  const fd = openSync(path, 'w')
  ftruncateSync(fd, sizeBytes)
  closeSync(fd)
  describeVm(dir, { folder: vmName, id: vmName, disks: [disk] })
  await using pair = await startBenchPair(dir)
  const pids = [pair.source.pid, pair.target.pid]
  const vm = new ReplicatedVm(pair, vmName, [{ diskId: disk, sizeBytes }])
  const figures: ThrottledWireFigure[] = []
  for (const workload of phases) {
    if (workload === 'W3') {
      startTracking(path)
      await vm.copyNow()
      const knows = () => trackerKnows({ dataDir: pair.source.dir, vm: vmName, disk, path })
      if (!(await waitUntil(knows, releaseTimeoutMs, 10))) throw new Error('the tracker has no base')
    }
    const changed = change(path, workload, rng)
    await untilResting(pids)
    const before = loopbackBytes()
    const startedMs = performance.now()
    if (workload === 'W1') await vm.start({ throttleBytesPerSecond, retentionPoints: 1 })
    else await vm.copyNow()
    const seconds = round3((performance.now() - startedMs) / 1000)
    const wireBytes = loopbackBytes() - before
    const identical = sameImage(await vm.newestLayer(disk), path, 'qcow2')
    const floor = wireFloorOf(path, changed)
    figures.push({
      figure: 'throttled-wire',
      workload,
      throttleBytesPerSecond,
      seconds,
      wireBytes,
      ...floor,
      identical,
    })
  }
  return figures
}

function change(path: string, workload: Phase, rng: Rng): readonly number[] {
  const blockCount = workload === 'W1' ? dataBlocks : changedBlocks
  return rewriteBlocks(path, { blockCount, rng, tracked: workload === 'W3' })
}

export function throttledWireMeasures(figures: readonly ThrottledWireFigure[]): readonly Measure[] {
  return phases.map((workload) => {
    const figure = figures.find((candidate) => candidate.workload === workload)
    const percent = figure && round3((figure.wireBytes / figure.compressedBytes - 1) * 100)
    return atMost(`${workload} under a throttle: % on the wire above the compressed blocks`, 2, percent)
  })
}
