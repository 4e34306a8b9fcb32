/** ./scripts/simulate: seeded histories of the real engine, each judged by what its guests' disks were. */
import { type ChildProcess, spawn } from 'node:child_process'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { copyForMutants } from './break.ts'
import { type HistoryReport, runHistory } from './history.ts'
import { mutantCalled, mutants } from './mutants.ts'
import { planHistory } from './plan.ts'
import { summaryOf, textOf } from './report.ts'
import { crashNames } from './world.ts'

/** In one process, one after the other. */
const BATCH_HISTORIES = 100

const help = `./scripts/simulate [--seeds N] [--seed S] [--from S] [--break NAME|all] [--json] [--plan] [--trace] [--processes N]

Runs N histories (default 100) from seed --from (default 1), or only --seed S. Each drives two agents in one process over
virtual time: kills at every named instant, power cuts, a line that breaks, repeats and falls silent, full disks, jumping
clocks, disks that come, go and grow, failovers. Every recovery point is compared with what the guest's disks were.
Exit code 1 when anything violates an invariant.
  --break NAME   with that bug put in on purpose: a violation must be found, and then the exit code is 0
                 (the first violation ends it; --seeds: histories at most, else the number that mutants.ts gives)
  --trace        print what happens in the history      --plan   print what it would do
`

const { values } = parseArgs({
  options: {
    seeds: { type: 'string' },
    seed: { type: 'string' },
    from: { type: 'string', default: '1' },
    break: { type: 'string' },
    json: { type: 'boolean', default: false },
    plan: { type: 'boolean', default: false },
    trace: { type: 'boolean', default: false },
    processes: { type: 'string', default: '2' },
    /** Seeds, comma separated. */
    list: { type: 'string' },
    /** One of the processes: a line of JSON for each history. */
    lines: { type: 'boolean', default: false },
    /** End with the first violation. */
    'until-violation': { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})

function seedsOf(): number[] {
  if (values.seed !== undefined) return [Number(values.seed)]
  if (values.list !== undefined) return values.list.split(',').map(Number)
  return Array.from({ length: Number(values.seeds ?? '100') }, (_, i) => Number(values.from) + i)
}

async function main(): Promise<void> {
  if (values.help) process.stdout.write(help)
  else if (values.plan)
    for (const seed of seedsOf())
      process.stdout.write(`${JSON.stringify(planHistory(seed, crashNames), null, 2)}\n`)
  else if (values.break !== undefined) breakOnPurpose(values.break)
  else if (values.lines) await runLines()
  else await runAll()
}

async function runLines(): Promise<void> {
  for (const seed of seedsOf()) {
    const report = await runHistory({ seed })
    process.stdout.write(`${JSON.stringify(report)}\n`)
    if (values['until-violation'] && report.violations.length > 0) return
  }
}

async function runAll(): Promise<void> {
  const startedMs = performance.now()
  const seeds = seedsOf()
  const reports =
    seeds.length === 1
      ? [await runHere(seeds[0] ?? 1)]
      : await spread(Math.min(seeds.length, Number(values.processes)))
  const summary = summaryOf(reports, { seeds: seeds.length, seconds: (performance.now() - startedMs) / 1000 })
  process.stdout.write(values.json ? `${JSON.stringify(summary)}\n` : textOf(summary))
  const isWhole = reports.length === seeds.length || values['until-violation']
  process.exitCode = summary.violations.length === 0 && isWhole ? 0 : 1
}

function runHere(seed: number): Promise<HistoryReport> {
  const trace = (line: string) => void process.stdout.write(`${line}\n`)
  return runHistory(values.trace ? { seed, trace } : { seed })
}

/**
 * Histories do not know of each other: as many processes as there are processors. Each runs a few and ends: lives that
 * were killed leave promises that nobody settles, and what hangs on these stays in memory.
 */
async function spread(processes: number): Promise<HistoryReport[]> {
  const reports: HistoryReport[] = []
  const waiting = batchesOf(seedsOf(), processes)
  const running = new Set<ChildProcess>()
  const isOver = () => values['until-violation'] && reports.some(({ violations }) => violations.length > 0)
  const work = async (): Promise<void> => {
    for (let batch = waiting.shift(); batch && !isOver(); batch = waiting.shift()) {
      const child = spawn(process.execPath, [...process.argv.slice(1), '--lines', '--list', batch.join()], {
        stdio: ['ignore', 'pipe', 'inherit'],
        // Else each process translates the same sources.
        env: { ...process.env, NODE_COMPILE_CACHE: join(tmpdir(), 'hotsite-compile-cache') },
      })
      running.add(child)
      for await (const line of createInterface({ input: child.stdout })) {
        reports.push(JSON.parse(line) as HistoryReport)
        if (isOver()) for (const other of running) other.kill()
      }
      running.delete(child)
    }
  }
  await Promise.all(Array.from({ length: processes }, work))
  return reports.sort((a, b) => a.seed - b.seed)
}

/** Smaller towards the end, so that all processes end together. */
function batchesOf(seeds: readonly number[], processes: number): number[][] {
  const batches: number[][] = []
  for (let at = 0; at < seeds.length; ) {
    const share = Math.ceil((seeds.length - at) / (2 * processes))
    const size = Math.min(BATCH_HISTORIES, Math.max(share, 5))
    batches.push(seeds.slice(at, at + size))
    at += size
  }
  return batches
}

/** The histories themselves must be able to fail: a check that passes on a broken engine checks nothing. */
function breakOnPurpose(name: string): void {
  using broken = copyForMutants()
  let missed = 0
  for (const mutant of name === 'all' ? mutants : [mutantCalled(name)]) {
    const seeds = values.seeds === undefined ? mutant.seeds : Number(values.seeds)
    const options = { from: Number(values.from), seeds, processes: Number(values.processes) }
    const { violation, seconds } = broken.tryMutant(mutant, options)
    if (!violation) missed++
    const verdict = violation
      ? `found by seed ${violation.seed}: ${violation.invariant}: ${violation.what}`
      : `NOT found in ${seeds} histories`
    process.stdout.write(`${mutant.name} (${mutant.bug}): ${verdict} (${seconds} s)\n`)
  }
  process.exitCode = missed === 0 ? 0 : 1
}

await main()
