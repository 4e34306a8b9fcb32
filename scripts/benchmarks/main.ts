/** ./scripts/bench */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { compare } from './compare.ts'
import { measureGuestLatency } from './guest-latency.ts'
import { measureLargeDisks } from './large-disks.ts'
import { type Measure, speedMeasures } from './measures.ts'
import { type BenchOptions, help, parseOptions } from './options.ts'
import { has } from './processes.ts'
import { measurePrune } from './prune.ts'
import { measureTable, ratioTable, resultTable } from './show.ts'
import { ratiosOf, resultsOf } from './summary.ts'
import { measureThrottledWire, type ThrottledWireFigure, throttledWireMeasures } from './throttled-wire.ts'

const say = (text: string) => process.stderr.write(`${text}\n`)
const print = (text: string) => process.stdout.write(text)
const printJson = (value: object) => print(`${JSON.stringify(value)}\n`)

async function main(): Promise<void> {
  const options = parseOptions(process.argv.slice(2))
  if (options.mode === 'help') return void print(help)
  if (!has('qemu-img')) throw new Error('qemu-img compares the copies: install the Debian package qemu-utils')
  const parent = options.dir ?? tmpdir()
  mkdirSync(parent, { recursive: true })
  const dir = mkdtempSync(join(parent, 'hotsite-bench-'))
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => {
      rmSync(dir, { recursive: true, force: true })
      process.kill(process.pid, signal)
    })
  try {
    if (options.mode === 'memory') report(await measureLargeDisks({ ...options, dir, say }), options)
    else if (options.mode === 'guest') report(await measureGuestLatency({ ...options, dir, say }), options)
    else if (options.mode === 'prune') report(await measurePrune({ ...options, dir, say }), options)
    else await speed(dir, options)
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

function report(
  { figures, measures }: { figures: readonly object[]; measures: readonly Measure[] },
  { json, mode }: BenchOptions,
): void {
  for (const figure of figures) printJson(figure)
  if (json) printJson({ summary: mode, measures })
  else print(`\n${measureTable(measures)}`)
  const identical = figures.every((figure) => !('identical' in figure) || figure.identical === true)
  process.exitCode = identical ? 0 : 1
}

async function speed(dir: string, options: BenchOptions): Promise<void> {
  const ownNamespaces = process.env['HOTSITE_BENCH_OWN_NAMESPACES'] === '1'
  if (!ownNamespaces)
    say('no network namespace of its own (needs root): bytes on the wire count all loopback traffic')
  const { rows, skipped } = await compare({ dir, options, ownNamespaces, say })
  const results = resultsOf(rows)
  const ratios = ratiosOf(results)
  const throttled = results.some(({ tool }) => tool === 'hotsite') ? await throttledWire(dir) : []
  const measures = [...speedMeasures(results, ratios), ...throttledWireMeasures(throttled)]
  const identical = [...results, ...throttled].every((result) => result.identical)
  if (options.json) {
    for (const result of [...results, ...throttled]) printJson(result)
    printJson({ summary: 'bench', ratios, measures, skipped, identical, ownNamespaces })
  } else {
    print([resultTable(results), ratioTable(ratios), measureTable(measures)].join('\n'))
    print(`\nevery copy identical to its source: ${identical ? 'yes' : 'NO'}\n`)
  }
  process.exitCode = identical ? 0 : 1
}

async function throttledWire(dir: string): Promise<readonly ThrottledWireFigure[]> {
  say('bytes on the wire under a throttle …')
  return await measureThrottledWire(join(dir, 'throttled'))
}

/** What went wrong first is worth more than what the cleaning up met afterwards. */
function firstOf(error: unknown): unknown {
  return error instanceof SuppressedError ? firstOf(error.suppressed) : error
}

try {
  await main()
} catch (error) {
  const first = firstOf(error)
  say(`bench: ${first instanceof Error ? (first.stack ?? first.message) : String(first)}`)
  process.exitCode = 1
}
