/** ./scripts/bench: full copy (W1) and delta with unknown changes (W2) of a disk with real files, beside rsync, in one run. */
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { vmsDir } from '#shared/folder/layout.ts'
import { writeVm } from '#shared/folder/vm-file.ts'
import { diskId, fabricVmId } from '#shared/ids.ts'
import { type Rng, seededRng } from '#shared/rng.ts'
import { type AgentPair, startAgentPair } from '../agent-kit/agent-pair.ts'
import { makeRealDisk, rewriteBlocks } from './disk.ts'
import { HotsiteRun } from './hotsite.ts'
import { type Measurement, median } from './measure.ts'
import { openRsyncPeers, type RsyncPeer } from './rsync.ts'

type Workload = 'W1-full' | 'W2-delta'

interface Row extends Measurement {
  readonly workload: Workload
  readonly tool: string
  readonly identical: boolean
}

const help = `./scripts/bench [--json] [--gib 2] [--rounds 3] [--dir DIR]

W1-full: a full copy to a fresh target. W2-delta: 750 blocks of 64 KiB for each GiB rewritten at random, half like logs,
half incompressible; no tool is told which. Seconds run to the fsync of the target; for Hotsite to the durable, attested
point. Figures are medians; only ratios within one run mean anything. --json: one object a line, the last with the ratios.
`

const changedBlocksPerGib = 750

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      json: { type: 'boolean', default: false },
      gib: { type: 'string', default: '2' },
      rounds: { type: 'string', default: '3' },
      dir: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    process.stdout.write(help)
    return
  }
  const say = (text: string) => process.stderr.write(`${text}\n`)
  const dir = mkdtempSync(join(values.dir ?? tmpdir(), 'hotsite-bench-'))
  try {
    const rows = await run({
      dir,
      sizeBytes: Number(values.gib) * 2 ** 30,
      rounds: Number(values.rounds),
      say,
    })
    const summary = summarize(rows)
    if (values.json) for (const row of rows) process.stdout.write(`${JSON.stringify(row)}\n`)
    if (values.json) process.stdout.write(`${JSON.stringify(summary)}\n`)
    else showSummary(summary)
    process.exitCode = rows.every((row) => row.identical) ? 0 : 1
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

async function run(request: {
  dir: string
  sizeBytes: number
  rounds: number
  say: (text: string) => void
}): Promise<readonly Row[]> {
  const { dir, sizeBytes, rounds, say } = request
  const host = 'source-host'
  const vmDir = join(vmsDir(join(dir, 'fabric'), host), 'bench')
  mkdirSync(vmDir, { recursive: true })
  writeFileSync(join(dir, 'fabric', 'fabric.yaml'), 'vmmServer: bench\n')
  const disk = join(vmDir, 'disk0.img')
  say('making a disk with real files …')
  makeRealDisk(disk, sizeBytes)
  const pristine = join(dir, 'pristine.img')
  execFileSync('cp', ['--sparse=always', disk, pristine])
  const peers = await openRsyncPeers(join(dir, 'rsync'))
  if (!peers.some(({ tool }) => tool === 'rsync-ssh'))
    say('rsync over ssh left out: rsync or an SSH server is not installed')
  await using pair = await startAgentPair({
    dir: join(dir, 'agents'),
    fabricRoot: join(dir, 'fabric'),
    sourceHost: host,
    targetHost: 'target-host',
  })
  const rows: Row[] = []
  const rng = seededRng(20_26)
  for (let round = 1; round <= rounds; round++) {
    say(`round ${round} of ${rounds} …`)
    execFileSync('cp', ['--sparse=always', pristine, disk])
    rows.push(...(await oneRound({ dir, vmDir, disk, sizeBytes, pair, peers, round, rng })))
  }
  for (const peer of peers) await peer[Symbol.asyncDispose]()
  return rows
}

/** Full copies by everyone, then one change, then deltas by everyone: the tools take turns on the same bytes. */
async function oneRound(request: {
  dir: string
  vmDir: string
  disk: string
  sizeBytes: number
  pair: AgentPair
  peers: readonly RsyncPeer[]
  round: number
  rng: Rng
}): Promise<readonly Row[]> {
  const { dir, vmDir, disk, sizeBytes, pair, peers, round, rng } = request
  const vm = `bench-${round}`
  writeVm(vmDir, {
    id: fabricVmId.parse(vm),
    name: 'bench',
    generation: 1,
    operatingSystem: '',
    memoryBytes: 0,
    cpuCount: 1,
    disks: [{ id: diskId.parse('disk0'), name: 'disk0', file: 'disk0.img', boot: true }],
    nics: [],
    classification: null,
    command: ['true'],
  })
  const rows: Row[] = []
  const hotsite = new HotsiteRun(pair, { vm, sizeBytes })
  const targetOf = (peer: RsyncPeer) => join(dir, `${peer.tool}.img`)
  for (const kind of ['full', 'delta'] as const) {
    const workload: Workload = kind === 'full' ? 'W1-full' : 'W2-delta'
    if (kind === 'delta') rewriteBlocks(disk, Math.round((changedBlocksPerGib * sizeBytes) / 2 ** 30), rng)
    warm(disk)
    const measured = kind === 'full' ? await hotsite.full() : await hotsite.delta()
    rows.push({
      workload,
      tool: 'hotsite',
      ...measured,
      identical: identical(['-f', 'qcow2', '-F', 'raw', await hotsite.newestLayer(), disk]),
    })
    for (const peer of peers) {
      if (kind === 'full') rmSync(targetOf(peer), { force: true })
      warm(disk)
      const taken = await peer.copy(kind, disk, targetOf(peer))
      rows.push({
        workload,
        tool: peer.tool,
        ...taken,
        identical: identical(['-f', 'raw', '-F', 'raw', targetOf(peer), disk]),
      })
    }
  }
  await hotsite.remove()
  return rows
}

/** The source is in the page cache for everyone. */
function warm(path: string): void {
  execFileSync('cat', [path], { stdio: ['ignore', 'ignore', 'inherit'] })
  execFileSync('sync')
}

function identical(args: readonly string[]): boolean {
  const { status } = spawnSync('qemu-img', ['compare', ...args], { stdio: 'ignore' })
  if (status === null) throw new Error('qemu-img is needed to check the copies: install qemu-utils')
  return status === 0
}

interface Summary {
  readonly medians: readonly (Measurement & { readonly workload: Workload; readonly tool: string })[]
  /** How many times faster than each peer, and CPU and wire bytes as parts of the peer's. */
  readonly ratios: readonly {
    workload: Workload
    peer: string
    timesFaster: number
    cpuShare: number
    wireShare: number
  }[]
  readonly identical: boolean
}

function summarize(rows: readonly Row[]): Summary {
  const keys = [...new Set(rows.map((row) => `${row.workload} ${row.tool}`))]
  const medians = keys.map((key) => {
    const of = rows.filter((row) => `${row.workload} ${row.tool}` === key)
    const [first] = of
    if (!first) throw new Error('a key without rows')
    const middle = (field: keyof Measurement) => round3(median(of.map((row) => row[field])))
    return {
      workload: first.workload,
      tool: first.tool,
      seconds: middle('seconds'),
      cpuSeconds: middle('cpuSeconds'),
      wireBytes: middle('wireBytes'),
    }
  })
  const ratios = medians.flatMap((peer) => {
    const ours = medians.find((row) => row.workload === peer.workload && row.tool === 'hotsite')
    if (!ours || peer.tool === 'hotsite') return []
    return [
      {
        workload: peer.workload,
        peer: peer.tool,
        timesFaster: round3(peer.seconds / ours.seconds),
        cpuShare: round3(ours.cpuSeconds / peer.cpuSeconds),
        wireShare: round3(ours.wireBytes / peer.wireBytes),
      },
    ]
  })
  return { medians, ratios, identical: rows.every((row) => row.identical) }
}

function showSummary({ medians, ratios, identical }: Summary): void {
  const line = (cells: readonly string[]) =>
    process.stdout.write(
      `${cells.map((cell, i) => (i < 2 ? cell.padEnd(14) : cell.padStart(12))).join('')}\n`,
    )
  line(['workload', 'tool', 'seconds', 'CPU s', 'wire MB'])
  for (const row of medians)
    line([
      row.workload,
      row.tool,
      row.seconds.toFixed(2),
      row.cpuSeconds.toFixed(2),
      (row.wireBytes / 1e6).toFixed(0),
    ])
  process.stdout.write('\n')
  line(['workload', 'against', 'x faster', 'CPU share', 'wire share'])
  for (const row of ratios)
    line([
      row.workload,
      row.peer,
      row.timesFaster.toFixed(2),
      row.cpuShare.toFixed(2),
      row.wireShare.toFixed(2),
    ])
  process.stdout.write(`\nevery copy identical to its source: ${identical ? 'yes' : 'NO'}\n`)
}

const round3 = (value: number): number => Math.round(value * 1000) / 1000

await main()
