/** ./scripts/chaos: seeded runs of the real daemons under kills and a bad link, judged by stock tools. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { isMutantName, makeMutant, mutants } from './mutants.ts'
import { planRun } from './plan.ts'
import { describe, type RunReport, runSeed } from './run.ts'
import { makeTemplate } from './world.ts'

const help = `./scripts/chaos [--seeds N] [--from S] [--seed S] [--break I2|I3] [--plan] [--json] [--keep]

Runs N seeds from --from (default 1), or only S. Each run protects a VM whose every byte can be predicted, kills daemons at random moments and
at a named crash point, lets the link drop, stall, repeat and flip bits, and then expects: replication goes on by itself,
every recovery point is a state the VM was in, none that was listed is lost, and nothing had to be copied anew.
  --break I2|I3  run with that invariant broken on purpose: the runs must find violations, and then the exit code is 0
  --plan   print what the runs would do     --keep   leave the folder of the last run behind
`

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      seeds: { type: 'string', default: '10' },
      from: { type: 'string', default: '1' },
      seed: { type: 'string' },
      plan: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      keep: { type: 'boolean', default: false },
      break: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    process.stdout.write(help)
    return
  }
  const seeds = values.seed
    ? [Number(values.seed)]
    : Array.from({ length: Number(values.seeds) }, (_, index) => Number(values.from) + index)
  if (values.plan) {
    for (const seed of seeds)
      process.stdout.write(
        `seed ${seed}\n${planRun(seed)
          .map((action) => `  ${describe(action)}\n`)
          .join('')}`,
      )
    return
  }
  if (values.break !== undefined) {
    runBroken(values.break, seeds)
    return
  }
  const base = mkdtempSync(join(tmpdir(), 'hotsite-chaos-'))
  const reports: RunReport[] = []
  try {
    const dir = join(base, 'world')
    await makeTemplate(dir)
    for (const seed of seeds) {
      const report = await runSeed(dir, seed)
      reports.push(report)
      process.stdout.write(values.json ? `${JSON.stringify(report)}\n` : lineOf(report))
      if (report.violations.length > 0 && values.keep) break
    }
  } finally {
    if (!values.keep) rmSync(base, { recursive: true, force: true })
    else process.stderr.write(`kept: ${base}\n`)
  }
  const bad = reports.filter(({ violations }) => violations.length > 0)
  const crashes = new Set(reports.flatMap(({ crashed }) => crashed))
  const points = reports.reduce((sum, { pointsVerified }) => sum + pointsVerified, 0)
  process.stdout.write(
    `${reports.length} runs, ${points} points verified, ${crashes.size} crash points hit, ${bad.length} runs with violations${bad.length > 0 ? `: seeds ${bad.map(({ seed }) => seed).join(', ')}` : ''}\n`,
  )
  process.exitCode = bad.length === 0 && reports.length === seeds.length ? 0 : 1
}

/** The runs themselves must fail: a check that passes on a broken engine checks nothing. */
function runBroken(name: string, seeds: readonly number[]): void {
  if (!isMutantName(name))
    throw new Error(`unknown invariant ${name}; there are mutants for ${Object.keys(mutants).join(', ')}`)
  const base = mkdtempSync(join(tmpdir(), 'hotsite-mutant-'))
  try {
    const copy = makeMutant(name, join(base, 'hotsite'))
    const entry = join(copy, 'scripts', 'faults', 'main.ts')
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [entry, '--from', String(seeds[0]), '--seeds', String(seeds.length)],
      {
        encoding: 'utf8',
        cwd: copy,
      },
    )
    process.stdout.write(stdout + stderr)
    const caught = status === 1 && /runs with violations: seeds/.test(stdout)
    process.stdout.write(caught ? `${name} broken: caught\n` : `${name} broken: NOT caught\n`)
    process.exitCode = caught ? 0 : 1
  } finally {
    rmSync(base, { recursive: true, force: true })
  }
}

function lineOf({ seed, crashed, pointsVerified, violations, seconds }: RunReport): string {
  const verdict = violations.length === 0 ? 'ok  ' : 'FAIL'
  const lines = [
    `${verdict} seed ${seed}: ${pointsVerified} points verified in ${seconds} s${crashed.length > 0 ? `, died at ${crashed.join(', ')}` : ''}`,
  ]
  return `${[...lines, ...violations.map((text) => `     ${text}`)].join('\n')}\n`
}

await main()
