/** Hotsite and its peers on the same disk: in each round and phase the tools take turns, each round another begins. */
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { type Rng, seededRng } from '#shared/rng.ts'
import { makeRealDisk, rewriteBlocks } from './disk.ts'
import { makeFabric } from './fabric.ts'
import { measure } from './measure.ts'
import type { BenchOptions } from './options.ts'
import { runScript } from './processes.ts'
import { catalog, type Skipped, whyNot } from './tools/catalog.ts'
import { sourceDisk } from './tools/hotsite.ts'
import { openSite } from './tools/site.ts'
import { allocatedBlocks, type WireFloor, wireFloorOf } from './wire-floor.ts'
import { type Job, type Phase, phaseOf, type Row, type Tool, type Workload } from './workload.ts'

const changedBlocksPerGib = 750

export interface Comparison {
  readonly rows: readonly Row[]
  readonly skipped: readonly Skipped[]
}

interface Request {
  readonly dir: string
  readonly options: BenchOptions
  /** Whether network, mounts and processes are our own (scripts/bench). */
  readonly ownNamespaces: boolean
  readonly say: (text: string) => void
}

export async function compare({ dir, options, ownNamespaces, say }: Request): Promise<Comparison> {
  makeFabric(dir, ['bench'])
  const source = sourceDisk(dir)
  say('making a disk with real files …')
  makeRealDisk(source, options.sizeBytes)
  const pristine = join(dir, 'pristine.img')
  runScript('cp --sparse=always "$1" "$2"', [source, pristine])
  const pristineFloor = wireFloorOf(pristine, allocatedBlocks(pristine))

  await using stack = new AsyncDisposableStack()
  const site = stack.use(openSite(dir, options.sizeBytes))
  const tools: Tool[] = []
  const skipped: Skipped[] = []
  const wanted = catalog.filter(
    (entry) =>
      options.only.test(entry.name) && entry.workloads.some((name) => options.workloads.includes(name)),
  )
  for (const entry of wanted) {
    const reason = whyNot(entry, ownNamespaces)
    if (reason) skipped.push({ tool: entry.name, reason })
    else tools.push(stack.use(await entry.open(site)))
  }
  for (const { tool, reason } of skipped) say(`${tool} left out: ${reason}`)

  const rows: Row[] = []
  const rng = seededRng(20_26)
  const work = { dir, source, pristine, pristineFloor, rng, say }
  for (let round = 1; round <= options.rounds; round++) {
    runScript('cp --sparse=always "$1" "$2"', [pristine, source])
    for (const phase of phasesOf(options.workloads)) {
      say(`round ${round} of ${options.rounds}: ${phase} …`)
      rows.push(...(await runPhase({ ...work, phase, round, tools, options })))
    }
  }
  return { rows, skipped }
}

const phasesOf = (chosen: readonly Workload[]): readonly Phase[] =>
  (['W1', 'W2', 'W3'] as const).filter((phase) => chosen.some((workload) => phaseOf(workload) === phase))

interface PhaseRequest {
  readonly dir: string
  readonly source: string
  readonly pristineFloor: WireFloor
  readonly rng: Rng
  readonly phase: Phase
  readonly round: number
  readonly tools: readonly Tool[]
  readonly options: BenchOptions
  readonly say: Request['say']
}

async function runPhase(request: PhaseRequest): Promise<readonly Row[]> {
  const { dir, source, phase, round, options, say } = request
  const workloads = options.workloads.filter((workload) => phaseOf(workload) === phase)
  const tools = rotated(
    request.tools.filter((tool) => tool.workloads.some((workload) => workloads.includes(workload))),
    round,
  )
  const target = join(dir, 'target', 'disk.img')
  mkdirSync(join(dir, 'target'), { recursive: true })
  const unchanged: Job = {
    phase,
    round,
    sizeBytes: options.sizeBytes,
    source,
    before: join(dir, 'before.img'),
    target,
    changedBlocks: [],
  }
  const { job, floor } =
    phase === 'W1'
      ? { job: unchanged, floor: request.pristineFloor }
      : await change(request, unchanged, tools)
  const rows: Row[] = []
  for (const tool of tools) {
    await tool.prepare(job)
    warm(job)
    const measured = await measure(tool, job)
    const identical = await tool.identical(job)
    await tool.finish?.(job)
    say(
      `  ${tool.name}: ${measured.seconds.toFixed(2)} s, ${measured.cpuSeconds.toFixed(2)} CPU s${identical ? '' : ', NOT IDENTICAL'}`,
    )
    for (const workload of workloads.filter((name) => tool.workloads.includes(name)))
      rows.push({ workload, tool: tool.name, encrypted: tool.encrypted, ...measured, ...floor, identical })
  }
  rmSync(target, { force: true })
  return rows
}

/** Keeps the disk as it was, lets the tools get ready for a change, and changes it. */
async function change(
  { source, phase, rng }: PhaseRequest,
  unchanged: Job,
  tools: readonly Tool[],
): Promise<{ job: Job; floor: WireFloor }> {
  runScript('cp --sparse=always "$1" "$2"', [source, unchanged.before])
  for (const tool of tools) await tool.beforeChange?.(unchanged)
  const blockCount = Math.round((changedBlocksPerGib * unchanged.sizeBytes) / 2 ** 30)
  const tracked = phase === 'W3' && tools.some((tool) => tool.name === 'hotsite')
  const changedBlocks = rewriteBlocks(source, { blockCount, rng, tracked })
  return { job: { ...unchanged, changedBlocks }, floor: wireFloorOf(source, changedBlocks) }
}

/** Whoever comes first finds the machine a little different from whoever comes last. */
function rotated<Item>(items: readonly Item[], by: number): readonly Item[] {
  const start = items.length > 0 ? by % items.length : 0
  return [...items.slice(start), ...items.slice(0, start)]
}

/** Source and old copy are in the page cache for everyone, and nothing waits to be written. */
function warm({ phase, source, target }: Job): void {
  runScript('for image in "$@"; do [ ! -e "$image" ] || cat "$image" >/dev/null; done; sync', [
    source,
    ...(phase === 'W1' ? [] : [target]),
  ])
}
