/**
 * --guest: what a guest under libvirt feels of being replicated. It writes 4 KiB at a time with fsync and measures each
 * write itself; replication is paused and resumed in turns, so that whatever else the machine does meets both alike.
 */
import { chmodSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { buildGuest, guestFolder } from '#shared/testing/libvirt/test-libvirt.ts'
import { type KvmLab, startKvmLab } from '../kvm-tour/kvm-lab.ts'
import { atMost, type Measure } from './measures.ts'
import { median, round3 } from './statistics.ts'

const guest = 'latency'
/** Three copies of 30 s. */
const TURN_MS = 90_000

export interface GuestLatencyFigure {
  readonly figure: 'guest-latency'
  readonly replicating: boolean
  readonly writes: number
  readonly medianMs: number
  readonly p99Ms: number
  readonly maxMs: number
}

export async function measureGuestLatency({
  dir,
  rounds,
  say,
}: {
  readonly dir: string
  readonly rounds: number
  readonly say: (text: string) => void
}): Promise<{ readonly figures: readonly GuestLatencyFigure[]; readonly measures: readonly Measure[] }> {
  const stop: (() => Promise<void>)[] = []
  try {
    const guestDir = guestFolder()
    buildGuest(guestDir)
    // QEMU has a user of its own, and goes through it to its disks.
    chmodSync(dir, 0o711)
    const lab = join(dir, 'l')
    mkdirSync(lab, { mode: 0o711 })
    const kvm = await startKvmLab({ dir: lab, accel: 'tcg', guestDir, guests: [guest], progress: say, stop })
    return await measure(kvm, rounds, say)
  } finally {
    for (const each of stop.reverse()) await each().catch(() => {})
  }
}

async function measure({ lab, from }: KvmLab, rounds: number, say: (text: string) => void) {
  await lab.cli('cloud', 'pair', 'vmm-a/gold-a', 'vmm-b/gold-b', '--copy-frequency', '30s')
  await lab.cli('vm', 'protect', guest)
  const samples = { with: [] as number[], without: [] as number[] }
  for (let round = 1; round <= rounds; round++)
    for (const turn of ['without', 'with'] as const) {
      await lab.cli('vm', turn === 'with' ? 'resume' : 'pause', guest)
      const before = (await latencies(from)).length
      await new Promise((resolve) => setTimeout(resolve, TURN_MS))
      const taken = (await latencies(from)).slice(before)
      samples[turn].push(...taken)
      say(`round ${round}, ${turn} replication: ${taken.length} writes, median ${round3(median(taken))} ms`)
    }
  const [without, replicating] = [figureOf(samples.without, false), figureOf(samples.with, true)]
  return {
    figures: [without, replicating],
    measures: [
      atMost(
        'guest: median of a write, times that without replication',
        1.1,
        round3(replicating.medianMs / without.medianMs),
      ),
      atMost(
        'guest: 99th percentile of a write, times that without',
        2,
        round3(replicating.p99Ms / without.p99Ms),
      ),
    ],
  }
}

/** Milliseconds. */
async function latencies(site: KvmLab['from']): Promise<readonly number[]> {
  const lines = (await site.readFile(guest, '/run/latencies')).split('\n')
  return lines.flatMap((line) => (/^[\d.]+$/.test(line) ? [Number(line) * 1000] : []))
}

function figureOf(values: readonly number[], replicating: boolean): GuestLatencyFigure {
  const sorted = [...values].sort((a, b) => a - b)
  const p99Ms = round3(sorted[Math.floor(sorted.length * 0.99)] ?? 0)
  const maxMs = round3(sorted.at(-1) ?? 0)
  return {
    figure: 'guest-latency',
    replicating,
    writes: values.length,
    medianMs: round3(median(values)),
    p99Ms,
    maxMs,
  }
}
