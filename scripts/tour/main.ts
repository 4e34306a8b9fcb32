import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { createGuest, startGuest } from '../lab-kit/guest.ts'
import { labDown, labUp, removeLab } from '../lab-kit/lab.ts'
import type { TourResult } from './result.ts'
import { mib, openScreen, type Screen } from './screen.ts'
import { Tour } from './tour.ts'

const help = `A guided tour of Hotsite on this machine, in about two minutes.

  ./scripts/demo [--json] [--dir DIR] [--keep]

  --json   the last line of standard output is one JSON object; progress goes to standard error
  --dir    where the two sites are built (a new folder; default: a temporary one)
  --keep   leave them running afterwards, to play with
  --kvm    with real guests under QEMU and libvirt; ./scripts/demo --kvm --help says more
`

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      json: { type: 'boolean', default: false },
      dir: { type: 'string' },
      keep: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    process.stdout.write(help)
    return
  }
  const startedMs = performance.now()
  const dir = values.dir ? resolve(values.dir) : join(mkdtempSync(join(tmpdir(), 'hotsite-demo-')), 'lab')
  const screen = openScreen(values.json ? process.stderr : process.stdout)
  try {
    screen.chapter('Two sites on this machine')
    const lab = await labUp(dir, {
      progress: (text) => screen.seen(text),
      makeGuest: (layout) => createGuest(layout, 64),
      startGuest,
    })
    const found = await new Tour(lab, screen).run()
    const result: TourResult = { ...found, seconds: Math.round((performance.now() - startedMs) / 100) / 10 }
    showResult(screen, result)
    if (values.json) process.stdout.write(`${JSON.stringify(result)}\n`)
    process.exitCode = result.ok ? 0 : 1
  } catch (error) {
    process.stderr.write(
      `demo: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\ndemo: the logs are under ${dir}\n`,
    )
    if (values.json) process.stdout.write(`${JSON.stringify({ ok: false, error: String(error) })}\n`)
    process.exitCode = 1
  } finally {
    if (!values.keep) await labDown(dir).catch(() => {})
    if (!values.keep && process.exitCode === 0) removeLab(dir)
  }
  if (values.keep) screen.note(`still running; stop it with ./scripts/lab down --dir ${dir} --remove`)
}

function showResult(screen: Screen, result: TourResult): void {
  screen.chapter(result.ok ? 'What was proved' : 'What was NOT as it must be')
  screen.table([
    [
      'replicas equal their source',
      `${result.identical ? 'yes' : 'NO'}, byte for byte, by ${result.comparedWith}`,
    ],
    ['recovery points attested', `${result.attested ? 'all' : 'NOT all'} of ${result.points}`],
    ['orders lost in planned failovers', String(result.lostTransactions)],
    ['data age when disaster struck', `${result.dataAgeSeconds} s`],
    ['changed on disk', mib(result.changedBytes)],
    [
      'sent over the link',
      `${mib(result.sentBytes)} (${percent(result.sentBytes, result.changedBytes)} of it)`,
    ],
    ['planned failover', `${result.failoverSeconds} s`],
    ['unplanned failover', `${result.unplannedFailoverSeconds} s`],
    ['disk bytes on the coordinator', String(result.coordinatorDiskBytes)],
    ['all of it', `${result.seconds} s`],
  ])
}

const percent = (part: number, whole: number): string =>
  whole === 0 ? '–' : `${Math.round((100 * part) / whole)} %`

await main()
