/**
 * --prune: a VM with many points, held by pins, loses all pins at once while it and a second VM are copied every 30 s and
 * go on changing. So that cycles and merges are sure to meet, both VMs are copied without a pause as well for as long as
 * the merges last. How long a cycle takes from capture to acknowledgement, and whether one was missed.
 */
import { closeSync, ftruncateSync, openSync } from 'node:fs'
import { type Rng, seededRng } from '#shared/rng.ts'
import { startTracking } from '../agent-kit/change-log.ts'
import { ReplicatedVm } from '../agent-kit/replicated-vm.ts'
import { waitUntil } from '../lab-kit/processes.ts'
import { type AckedCycle, type CycleSummary, cycleSummary } from './cycle-log.ts'
import { rewriteBlocks } from './disk.ts'
import { describeVm, diskPath, makeFabric, startBenchPair } from './fabric.ts'
import { atMost, type Measure } from './measures.ts'
import { round3 } from './statistics.ts'
import { sameImage } from './tools/site.ts'

const copyFrequencySeconds = 30
/** A copy that starts a moment late, by the timer and by our looking, is not missed. */
const toleranceSeconds = 1
const lookEveryMs = 100
/** 6 MiB of change for each GiB and point: 131 MB a point on 20 GiB. */
const changedBlocksPerGib = 100
/** A quarter of the disk holds data. */
const dataPart = 0.25
/** Cycles by the timetable that are watched after the last merge. */
const watchedCycles = 3
/** What a copy without a pause changes. */
const smallChangeBlocks = 50
const timeoutMs = 30 * 60_000
const lastMergeTimeoutMs = 60_000

export interface PruneFigure extends CycleSummary {
  readonly figure: 'prune'
  readonly vm: 'pruned' | 'other'
  readonly diskBytes: number
  readonly pointsBefore: number
  readonly pointsAfter: number
  /** From the removal of the pins until none of the points was left; the time watched if that did not happen. */
  readonly pruneSeconds: number
  /** Acknowledged in that time. */
  readonly cyclesWhilePruning: number
  readonly identical: boolean
}

export interface Prune {
  readonly figures: readonly PruneFigure[]
  readonly measures: readonly Measure[]
}

interface Subject {
  readonly name: 'pruned' | 'other'
  readonly path: string
  readonly sizeBytes: number
  readonly vm: ReplicatedVm
  readonly cycles: AckedCycle[]
}

interface Request {
  readonly dir: string
  readonly sizeBytes: number
  readonly points: number
  readonly say: (text: string) => void
}

export async function measurePrune({ dir, sizeBytes, points, say }: Request): Promise<Prune> {
  const rng = seededRng(3)
  makeFabric(dir, ['pruned', 'other'])
  await using pair = await startBenchPair(dir)
  const subjectOf = async (name: Subject['name'], diskBytes: number): Promise<Subject> => {
    const path = diskPath(dir, name, 'disk0')
    makeDisk(path, diskBytes, rng)
    describeVm(dir, { folder: name, id: name, disks: ['disk0'] })
    const vm = new ReplicatedVm(pair, name, [{ diskId: 'disk0', sizeBytes: diskBytes }])
    say(`${name}: full copy of ${diskBytes / 2 ** 30} GiB …`)
    await vm.start({ copyFrequencySeconds: 900 })
    return { name, path, sizeBytes: diskBytes, vm, cycles: [] }
  }
  const pruned = await subjectOf('pruned', sizeBytes)
  const other = await subjectOf('other', sizeBytes / 4)
  say(`${points} points …`)
  const pinned = await makePoints(pruned, points, rng)
  const pointsBefore = (await pruned.vm.points()).length

  const subjects = [pruned, other]
  for (const { vm } of subjects) await vm.setPolicy({ copyFrequencySeconds })
  say('the pins go; replication goes on …')
  const startedMs = performance.now()
  const pruning = new AbortController()
  const watch = watchCycles(subjects, rng, () => pruning.signal.aborted)
  const copies = subjects.map((subject) => copyWithoutPause(subject, rng, pruning.signal))
  // Not awaited: each waits its turn behind the merges it set off.
  const unpinned = Promise.all(pinned.map((seq) => pruned.vm.pin(seq, false)))
  const finished = await watch.until(async () => {
    const isDone = (await pruned.vm.points()).every(({ seq }) => !pinned.includes(seq))
    if (isDone) pruning.abort()
    return isDone
  })
  pruning.abort()
  await unpinned
  const cyclesWhilePruning = await Promise.all(copies)
  const pruneSeconds = round3((finished - startedMs) / 1000)
  const figures: PruneFigure[] = []
  for (const [index, { name, vm, path, sizeBytes: diskBytes, cycles }] of subjects.entries()) {
    await vm.copyNow()
    await waitUntil(async () => (await vm.points()).length <= 1, lastMergeTimeoutMs)
    figures.push({
      figure: 'prune',
      vm: name,
      diskBytes,
      pointsBefore: name === 'pruned' ? pointsBefore : 1,
      pointsAfter: (await vm.points()).length,
      pruneSeconds,
      cyclesWhilePruning: cyclesWhilePruning[index] ?? 0,
      ...cycleSummary(cycles),
      identical: sameImage(await vm.newestLayer('disk0'), path, 'qcow2'),
    })
  }
  return { figures, measures: figures.flatMap(measuresOf) }
}

function measuresOf({ vm, longestCycleSeconds, longestGapSeconds, pointsAfter }: PruneFigure): Measure[] {
  return [
    atMost(`prune: longest cycle of the ${vm} VM, s`, copyFrequencySeconds, longestCycleSeconds),
    atMost(
      `prune: longest time between two captures of the ${vm} VM, s`,
      copyFrequencySeconds + toleranceSeconds,
      longestGapSeconds,
    ),
    ...(vm === 'pruned' ? [atMost('prune: points left', 1, pointsAfter)] : []),
  ]
}

/** Pins each point as soon as it is there; answers their seqs. The newest, which stays anyway, is not among them. */
async function makePoints({ vm, path, sizeBytes }: Subject, count: number, rng: Rng): Promise<number[]> {
  const seqs: number[] = [(await vm.acked()).seq]
  while (seqs.length < count) {
    await vm.pin(seqs.at(-1) ?? 0, true)
    change(path, sizeBytes, rng)
    seqs.push(await vm.copyNow())
  }
  return seqs.slice(0, -1)
}

function change(path: string, sizeBytes: number, rng: Rng): void {
  const blockCount = Math.round((changedBlocksPerGib * sizeBytes) / 2 ** 30)
  rewriteBlocks(path, { blockCount, rng, tracked: true })
}

/**
 * Answers how many copies were acknowledged before the signal. Changes the disk between two of its copies, once every copy
 * frequency as much as a cycle ordinarily finds. A cycle of the timetable may still meet a change and be torn: the VM is off.
 */
async function copyWithoutPause(
  { vm, path, sizeBytes }: Subject,
  rng: Rng,
  signal: AbortSignal,
): Promise<number> {
  let copies = 0
  let changedAtMs = 0
  while (!signal.aborted) {
    if (isChangeDue(changedAtMs)) {
      changedAtMs = performance.now()
      change(path, sizeBytes, rng)
    } else rewriteBlocks(path, { blockCount: smallChangeBlocks, rng, tracked: true })
    const isCopied = await vm.copyNow().then(() => true, unlessTorn)
    if (isCopied && !signal.aborted) copies++
  }
  return copies
}

function unlessTorn(error: unknown): false {
  if (error instanceof Error && error.message.startsWith('snapshot-torn')) return false
  throw error
}

const isChangeDue = (changedAtMs: number) =>
  performance.now() - changedAtMs >= copyFrequencySeconds * 1000 * 0.9

/** Notes each acknowledged cycle; once `mayChange`, changes the disk again behind it, once every copy frequency. */
function watchCycles(subjects: readonly Subject[], rng: Rng, mayChange: () => boolean) {
  const enough = (sinceMs: number) =>
    subjects.every(
      ({ cycles }) => cycles.filter(({ capturedAtMs }) => capturedAtMs > sinceMs).length >= watchedCycles,
    )
  const changedAtMs = new Map<ReplicatedVm, number>()
  const look = async ({ vm, path, sizeBytes, cycles }: Subject) => {
    const { seq, capturedAtMs } = await vm.acked()
    if (capturedAtMs === null || seq === cycles.at(-1)?.seq) return
    cycles.push({ seq, capturedAtMs, ackedAtMs: Date.now() })
    if (!mayChange() || !isChangeDue(changedAtMs.get(vm) ?? 0)) return
    changedAtMs.set(vm, performance.now())
    change(path, sizeBytes, rng)
  }
  return {
    /** Answers when `done` held first, by performance.now(); goes on until enough cycles were seen. */
    async until(done: () => Promise<boolean>): Promise<number> {
      const deadlineMs = performance.now() + timeoutMs
      let doneMs: number | undefined
      let doneAtMs = Number.POSITIVE_INFINITY
      while (!enough(doneAtMs) && performance.now() < deadlineMs) {
        for (const subject of subjects) await look(subject)
        if (doneMs === undefined && (await done())) {
          doneMs = performance.now()
          doneAtMs = Date.now()
        }
        await new Promise((resolve) => setTimeout(resolve, lookEveryMs))
      }
      return doneMs ?? performance.now()
    },
  }
}

/** Tracked from the start; data at random places. */
function makeDisk(path: string, sizeBytes: number, rng: Rng): void {
  const fd = openSync(path, 'w')
  ftruncateSync(fd, sizeBytes)
  closeSync(fd)
  startTracking(path)
  const pieceBytes = 256 * 2 ** 20
  const blocks = (sizeBytes * dataPart) / 65_536
  // In pieces, since what is written at once lies in memory.
  for (let left = blocks; left > 0; left -= pieceBytes / 65_536)
    rewriteBlocks(path, { blockCount: Math.ceil(Math.min(left, pieceBytes / 65_536)), rng, tracked: true })
}
