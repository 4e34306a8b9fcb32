/**
 * --memory: ten sparse disks of 1 TiB under one VM, the peak memory of both agents; and a copy cycle of 100 changed blocks
 * on disks of four sizes with the same data, taken in turns: all of it in the first GiB, where only the size of the disk
 * differs, and scattered over the whole disk, where a large one has every block in another part of its tree and of its
 * tables. The tracker reports the extents in all.
 */
import { closeSync, ftruncateSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Rng, seededRng } from '#shared/rng.ts'
import type { AgentPair } from '../agent-kit/agent-pair.ts'
import { startTracking } from '../agent-kit/change-log.ts'
import { ReplicatedVm } from '../agent-kit/replicated-vm.ts'
import { rewriteBlocks } from './disk.ts'
import { describeVm, diskPath, makeFabric, startBenchPair } from './fabric.ts'
import { cpuSecondsOf, untilResting } from './measure.ts'
import { atMost, type Measure } from './measures.ts'
import { parseIoBytes, parseStatusKb } from './parse.ts'
import { median, round3 } from './statistics.ts'
import { sameImage } from './tools/site.ts'

/** Scattered, so that a large disk touches as many groups of its tree as it has data. */
const dataBlocks = 1_000
const changedBlocks = 100
const cycles = 5
/** Of the largest disk: 1 GiB, 16 GiB, 256 GiB and 1 TiB. */
const parts = [1 / 1024, 1 / 64, 1 / 4, 1]

export interface MemoryFigure {
  readonly figure: 'memory'
  readonly agent: 'source' | 'target'
  readonly disks: number
  readonly diskBytes: number
  readonly peakMiB: number
  readonly identical: boolean
}

export interface CycleFigure {
  readonly figure: 'cycle'
  readonly spread: Spread
  readonly diskBytes: number
  readonly changedBlocks: number
  readonly seconds: number
  readonly cpuSeconds: number
  /** What both agents asked the system to read and write (rchar, wchar), sockets included. */
  readonly ioBytes: number
}

type Spread = 'first GiB' | 'whole disk'
const spreads = ['first GiB', 'whole disk'] as const

export interface LargeDisks {
  readonly figures: readonly (MemoryFigure | CycleFigure)[]
  readonly measures: readonly Measure[]
}

interface Request {
  readonly dir: string
  readonly disks: number
  readonly diskBytes: number
  readonly say: (text: string) => void
}

export async function measureLargeDisks(request: Request): Promise<LargeDisks> {
  const memory = await peakMemory({ ...request, dir: join(request.dir, 'memory') })
  const costs = await cycleCosts({ ...request, dir: join(request.dir, 'cycles') })
  return {
    figures: [...memory, ...costs],
    measures: [
      ...memory.map((figure) => atMost(`memory: peak MiB of the ${figure.agent} agent`, 400, figure.peakMiB)),
      ...spreads.flatMap((spread) => growth(costs, spread)),
    ],
  }
}

function growth(costs: readonly CycleFigure[], spread: Spread): readonly Measure[] {
  const figures = costs.filter((figure) => figure.spread === spread)
  const [smallest] = figures
  const largest = figures.at(-1)
  const times = (value: (figure: CycleFigure) => number) =>
    largest && smallest ? round3(value(largest) / value(smallest)) : undefined
  const name = (what: string) =>
    `cycle, changes in the ${spread}: ${what} on the largest disk, times the smallest`
  return [
    atMost(
      name('CPU'),
      1.5,
      times((figure) => figure.cpuSeconds),
    ),
    atMost(
      name('bytes read and written'),
      1.5,
      times((figure) => figure.ioBytes),
    ),
  ]
}

async function peakMemory({ dir, disks, diskBytes, say }: Request): Promise<readonly MemoryFigure[]> {
  const names = Array.from({ length: disks }, (_, index) => `disk${index}`)
  const rng = seededRng(1)
  makeFabric(dir, ['large'])
  for (const name of names) makeSparseDisk(diskPath(dir, 'large', name), diskBytes, rng)
  describeVm(dir, { folder: 'large', id: 'large', disks: names })
  await using pair = await startBenchPair(dir)
  const vm = new ReplicatedVm(
    pair,
    'large',
    names.map((diskId) => ({ diskId, sizeBytes: diskBytes })),
  )
  say(`${disks} disks of ${diskBytes / 2 ** 30} GiB: full copy …`)
  const startedMs = performance.now()
  await vm.start()
  say(`  ${((performance.now() - startedMs) / 1000).toFixed(1)} s`)
  for (let cycle = 1; cycle <= cycles; cycle++) {
    for (const name of names) rewrite(diskPath(dir, 'large', name), rng)
    await vm.copyNow()
  }
  let identical = true
  for (const name of names)
    identical = sameImage(await vm.newestLayer(name), diskPath(dir, 'large', name), 'qcow2') && identical
  return (['source', 'target'] as const).map((agent) => ({
    figure: 'memory',
    agent,
    disks,
    diskBytes,
    peakMiB: peakMiB(pair[agent].pid),
    identical,
  }))
}

function peakMiB(pid: number): number {
  const kb = parseStatusKb(readFileSync(`/proc/${pid}/status`, 'utf8'), 'VmHWM')
  if (kb === undefined) throw new Error('/proc/<pid>/status has no VmHWM')
  return Math.round(kb / 1024)
}

interface Subject {
  readonly diskBytes: number
  readonly spread: Spread
  readonly path: string
  readonly vm: ReplicatedVm
  readonly seconds: number[]
  cpuSeconds: number
  ioBytes: number
}

async function cycleCosts({ dir, diskBytes, say }: Request): Promise<readonly CycleFigure[]> {
  const rng = seededRng(2)
  const sizes = parts.map((part) => Math.max(2 ** 20 * 256, diskBytes * part))
  const wanted = spreads.flatMap((spread) => sizes.map((sizeBytes) => ({ spread, sizeBytes })))
  makeFabric(
    dir,
    wanted.map((_, index) => `vm${index}`),
  )
  await using pair = await startBenchPair(dir)
  const subjects: Subject[] = []
  for (const [index, { spread, sizeBytes }] of wanted.entries()) {
    const name = `vm${index}`
    const path = diskPath(dir, name, 'disk0')
    makeSparseDisk(path, sizeBytes, rng, spread)
    describeVm(dir, { folder: name, id: name, disks: ['disk0'] })
    const vm = new ReplicatedVm(pair, name, [{ diskId: 'disk0', sizeBytes }])
    say(`a disk of ${sizeBytes / 2 ** 30} GiB, data in the ${spread}: full copy …`)
    await vm.start()
    subjects.push({ diskBytes: sizeBytes, spread, path, vm, seconds: [], cpuSeconds: 0, ioBytes: 0 })
  }
  say('cycles of 100 changed blocks in turns …')
  // The first one is not counted: it fills the caches.
  for (let cycle = 0; cycle <= cycles; cycle++)
    for (const subject of subjects) await oneCycle(pair, subject, { rng, counts: cycle > 0 })
  return subjects.map((subject) => ({
    figure: 'cycle',
    spread: subject.spread,
    diskBytes: subject.diskBytes,
    changedBlocks,
    seconds: round3(median(subject.seconds)),
    cpuSeconds: round3(subject.cpuSeconds / cycles),
    ioBytes: Math.round(subject.ioBytes / cycles),
  }))
}

async function oneCycle(
  pair: AgentPair,
  subject: Subject,
  { rng, counts }: { rng: Rng; counts: boolean },
): Promise<void> {
  const pids = [pair.source.pid, pair.target.pid]
  const used = () => ({
    cpuSeconds: pids.reduce((sum, pid) => sum + cpuSecondsOf(pid), 0),
    ioBytes: pids.reduce((sum, pid) => sum + parseIoBytes(readFileSync(`/proc/${pid}/io`, 'utf8')), 0),
  })
  rewrite(subject.path, rng, subject.spread)
  await untilResting(pids)
  const before = used()
  const startedMs = performance.now()
  await subject.vm.copyNow()
  const seconds = (performance.now() - startedMs) / 1000
  await untilResting(pids)
  const after = used()
  if (!counts) return
  subject.seconds.push(seconds)
  subject.cpuSeconds += after.cpuSeconds - before.cpuSeconds
  subject.ioBytes += after.ioBytes - before.ioBytes
}

const withinOf = (spread: Spread) => (spread === 'whole disk' ? Number.POSITIVE_INFINITY : 2 ** 30)

function rewrite(path: string, rng: Rng, spread: Spread = 'whole disk'): void {
  rewriteBlocks(path, { blockCount: changedBlocks, rng, tracked: true, withinBytes: withinOf(spread) })
}

/** Tracked from the start, so that every cycle after the full copy has its extents. */
function makeSparseDisk(path: string, sizeBytes: number, rng: Rng, spread: Spread = 'whole disk'): void {
  const fd = openSync(path, 'w')
  ftruncateSync(fd, sizeBytes)
  closeSync(fd)
  startTracking(path)
  rewriteBlocks(path, { blockCount: dataBlocks, rng, tracked: true, withinBytes: withinOf(spread) })
}
