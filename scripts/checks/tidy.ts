/**
 * The rules of this repository that no linter knows, checked by a machine so that review is left for thought:
 * which folder may import which, what may not be called (with what to use instead), pure files, size budgets.
 * Run by scripts/test; prints every finding and exits 1 when there is one.
 */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { dirname, join, normalize, sep } from 'node:path'

interface Finding {
  readonly file: string
  readonly line: number
  readonly text: string
}

/** The arrows of docs/architecture.md: a folder may import itself and these. */
const mayImport: Readonly<Record<string, readonly string[]>> = {
  proto: [],
  shared: ['proto'],
  coordinator: ['shared', 'proto'],
  'provider-agent': ['shared', 'proto'],
  'recovery-agent': ['shared', 'proto'],
  scripts: ['shared', 'proto', 'coordinator', 'provider-agent', 'recovery-agent'],
}

/** Inside the coordinator the arrows go domain ← store ← engine; domain knows nobody. */
const coordinatorLayers: Readonly<Record<string, readonly string[]>> = {
  domain: ['domain'],
  store: ['domain', 'store', 'registration'],
}

const banned: readonly { pattern: RegExp; instead: string; allowedIn: RegExp }[] = [
  {
    pattern: /\bDate\.now\(\)|\bnew Date\(\)/,
    instead: 'clock.now() of an injected Clock',
    allowedIn: /^(shared\/clock\.ts|scripts\/|.*\.test\.ts$|.*\/testing\/)/,
  },
  // A test draws its seed and prints it.
  {
    pattern: /\bMath\.random\(\)/,
    instead: 'an injected Rng',
    allowedIn: /(\.test\.ts$|\/test-kit\/|^scripts\/faults\/mutants\.ts$)/,
  },
  {
    pattern: /\bprocess\.exit\(/,
    instead: 'process.exitCode and a clean end',
    allowedIn: /^(scripts\/|.*\.test\.ts$|.*\/testing\/)/,
  },
  {
    pattern: /rejectUnauthorized:\s*false/,
    instead: 'a pinned certificate in `ca`',
    allowedIn: /^scripts\/checks\/tidy\.ts$/,
  },
  {
    pattern: /\bas any\b|@ts-ignore|@ts-nocheck/,
    instead: 'a parser or a narrower type',
    allowedIn: /^scripts\/checks\/tidy\.ts$/,
  },
  {
    pattern: /\b(TODO|FIXME|XXX)\b/,
    instead: 'an issue, or the finished thing',
    allowedIn: /^scripts\/checks\/tidy\.ts$/,
  },
  {
    pattern: /\b(it|test|describe)\.(only|todo)\b/,
    instead: 'a test that runs',
    allowedIn: /^scripts\/checks\/tidy\.ts$/,
  },
]

/** Files whose rules must be readable, testable and repeatable without a world around them. */
const purePattern = /^(coordinator\/domain\/|shared\/policy\/)/
const impureImport = /from '(node:|ws'|better-sqlite3|kysely|pino)/

const maxFileLines = 400

function trackedFiles(): readonly string[] {
  const out = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard', '*.ts'], {
    encoding: 'utf8',
  })
  return out.split('\n').filter((path) => path.length > 0)
}

/** The repository path an import points at, or undefined for a package. */
function importTarget(file: string, specifier: string): string | undefined {
  if (specifier.startsWith('#')) return specifier.slice(1)
  if (specifier.startsWith('.'))
    return normalize(join(dirname(file), specifier))
      .split(sep)
      .join('/')
  return undefined
}

function layerFinding(file: string, target: string): string | undefined {
  const from = file.split('/')[0] ?? ''
  const to = target.split('/')[0] ?? ''
  // package.json and the like: of the repository, not of a folder.
  if (to === target) return undefined
  const allowed = mayImport[from]
  if (!allowed || from === to) return coordinatorFinding(file, target)
  if (!allowed.includes(to))
    return `${from} may not import ${to}: the arrows go ${[...allowed, from].join(' ← ')}`
  return undefined
}

function coordinatorFinding(file: string, target: string): string | undefined {
  const [top, layer] = file.split('/')
  const [targetTop, targetLayer, ...rest] = target.split('/')
  const allowed =
    top === 'coordinator' && targetTop === 'coordinator' && layer ? coordinatorLayers[layer] : undefined
  if (!allowed || rest.length === 0 || /\.test\.ts$/.test(file)) return undefined
  return allowed.includes(targetLayer ?? '')
    ? undefined
    : `coordinator/${layer} may not import coordinator/${targetLayer}`
}

function check(file: string): Finding[] {
  const lines = readFileSync(file, 'utf8').split('\n')
  const findings: Finding[] = []
  const report = (line: number, text: string) => findings.push({ file, line, text })
  if (lines.length > maxFileLines + 1)
    report(1, `${lines.length} lines: split it, a file holds one thing (at most ${maxFileLines})`)
  const pure = purePattern.test(file) && !file.endsWith('.test.ts')
  lines.forEach((line, index) => {
    const specifier = /(?:from|import\() ?'([^']+)'/.exec(line)?.[1]
    const target = specifier ? importTarget(file, specifier) : undefined
    const layer = target ? layerFinding(file, target) : undefined
    if (layer) report(index + 1, layer)
    if (pure && impureImport.test(line))
      report(index + 1, 'a pure file: time, randomness and the outside come in as arguments')
    for (const { pattern, instead, allowedIn } of banned) {
      if (pattern.test(line) && !allowedIn.test(file))
        report(index + 1, `${pattern.exec(line)?.[0]}: use ${instead}`)
    }
  })
  return findings
}

const findings = trackedFiles().flatMap(check)
for (const { file, line, text } of findings) process.stdout.write(`${file}:${line}: ${text}\n`)
process.stdout.write(findings.length === 0 ? 'tidy: nothing to say\n' : `tidy: ${findings.length} findings\n`)
process.exitCode = findings.length === 0 ? 0 : 1
