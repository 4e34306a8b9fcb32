import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { buildGuest, guestFolder } from '#shared/testing/libvirt/test-libvirt.ts'
import { openScreen, type Screen } from '../tour/screen.ts'
import { startKvmLab } from './kvm-lab.ts'
import type { Accelerator } from './kvm-site.ts'
import { KvmTour } from './kvm-tour.ts'
import type { KvmTourResult } from './result.ts'

const help = `The tour with real guests: QEMU under two libvirt daemons of its own, in about four minutes.

  ./scripts/demo --kvm [--accel tcg|kvm] [--json] [--keep]

  --accel  tcg (default) emulates the processor and runs anywhere; kvm needs hardware and a /dev/kvm that works
  --json   the last line of standard output is one JSON object; progress goes to standard error
  --keep   leave the folder with logs, images and points; the picture of the console stays in any case
`

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      kvm: { type: 'boolean' },
      accel: { type: 'string', default: 'tcg' },
      json: { type: 'boolean', default: false },
      keep: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    process.stdout.write(help)
    return
  }
  const { accel } = values
  if (accel !== 'tcg' && accel !== 'kvm') throw new Error(`--accel takes tcg or kvm, not ${accel}`)
  const startedMs = performance.now()
  // Short: below it lie sockets, whose paths have at most 107 bytes.
  const dir = mkdtempSync(join(tmpdir(), 'hs-kvm-'))
  // QEMU has a user of its own, and goes through it to its disks.
  chmodSync(dir, 0o711)
  const screen = openScreen(values.json ? process.stderr : process.stdout)
  const stop: (() => Promise<void>)[] = []
  try {
    const result = {
      ...(await tour({ dir, accel, screen, stop })),
      seconds: round((performance.now() - startedMs) / 1000),
    }
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
    for (const each of stop.reverse()) await each().catch(() => {})
    if (!values.keep && process.exitCode === 0)
      for (const name of ['a', 'b', 'lab']) rmSync(join(dir, name), { recursive: true, force: true })
  }
}

async function tour(of: {
  dir: string
  accel: Accelerator
  screen: Screen
  stop: (() => Promise<void>)[]
}): Promise<Omit<KvmTourResult, 'seconds'>> {
  const { screen } = of
  screen.chapter('Two hosts under libvirt on this machine')
  const guestDir = guestFolder()
  buildGuest(guestDir)
  screen.seen('a small Linux guest from packages of Debian: kernel, busybox, guest agent, SQLite')
  const { lab, from, to } = await startKvmLab({
    ...of,
    guestDir,
    guests: ['orders', 'database'],
    progress: (text) => screen.seen(text),
  })
  return await new KvmTour(lab, screen, { from, to }).run()
}

function showResult(screen: Screen, result: KvmTourResult): void {
  const yes = (value: boolean) => (value ? 'yes' : 'NO')
  screen.chapter(result.ok ? 'What was proved' : 'What was NOT as it must be')
  screen.table([
    ['both guests came up', yes(result.guestBooted)],
    ['orders across two disks as they were written', yes(result.orderHeld)],
    ['file systems clean (e2fsck)', yes(result.fsClean)],
    ['database clean (its own check)', yes(result.databaseClean)],
    ['data age when disaster struck', `${result.rpoSeconds} s`],
    ['from the word to the heartbeat', `${result.rtoSeconds} s`],
    ['longest freeze', `${result.freezeMillisMax} ms`],
    ['longest wait of an order, in the guest', `${result.guestStallMillisMax} ms`],
    ['all of it', `${result.seconds} s`],
  ])
}

const round = (value: number): number => Math.round(value * 10) / 10

await main()
