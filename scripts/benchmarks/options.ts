/** The command line. Pure. */
import { parseArgs } from 'node:util'
import { type Workload, workloads } from './workload.ts'

export const help = `./scripts/bench [--json] [--gib 2] [--rounds 3] [--workloads W1-encrypted,W1-plain,W2,W3] [--only REGEX] [--dir DIR]

Hotsite and its peers on the same work in the same run, taking turns; medians of the rounds. Only ratios mean anything.
  W1-encrypted  a full copy of an ext4 disk with real files to a fresh target; of peers, those that encrypt
  W1-plain      the same work; of peers, those that do not. Hotsite always encrypts: its figures stand in both
  W2            750 blocks of 64 KiB for each GiB rewritten at random, half like logs, half incompressible; nobody is told which
  W3            the same again; the changed extents are known (tracker, dirty bitmap, file system, list)
Seconds run until the copy is durable; for Hotsite until the attested point is acknowledged. CPU seconds are user and system
time of all processes of both ends, until they rest. Bytes on the wire are those of the loopback interface. MB/s count blocks
with data (W1) or changed blocks. After the rounds Hotsite copies a small disk under a throttle of 20 MB/s: there its bytes
stand against the compressed blocks, without one against the blocks as they are, for this link is faster than compressing. identical: compared by qemu-img after the clock. --only is matched against names of tools.

./scripts/bench --memory [--tib 1] [--disks 10]   peak memory of both agents with large sparse disks, and what a cycle costs by disk size
./scripts/bench --prune [--gib 20] [--points 40]  pruning down to 1 while this VM and another are copied every 30 s
./scripts/bench --guest [--rounds 3]              what an emulated guest under libvirt feels of being copied every 30 s, in its own writes
--json prints one object a line, the last with ratios and measures. Exit code 1: a copy was not identical.
`

export interface BenchOptions {
  readonly mode: 'compare' | 'memory' | 'prune' | 'guest' | 'help'
  readonly json: boolean
  readonly sizeBytes: number
  readonly rounds: number
  readonly workloads: readonly Workload[]
  readonly only: RegExp
  readonly dir: string | undefined
  readonly diskBytes: number
  readonly disks: number
  readonly points: number
}

const defaultGib = { compare: '2', memory: '2', prune: '20', guest: '2', help: '2' } as const

/** Throws an Error that says what is wrong with an option. */
export function parseOptions(argv: readonly string[]): BenchOptions {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      json: { type: 'boolean', default: false },
      memory: { type: 'boolean', default: false },
      prune: { type: 'boolean', default: false },
      guest: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
      gib: { type: 'string' },
      rounds: { type: 'string', default: '3' },
      workloads: { type: 'string', default: workloads.join(',') },
      only: { type: 'string', default: '.' },
      dir: { type: 'string' },
      tib: { type: 'string', default: '1' },
      disks: { type: 'string', default: '10' },
      points: { type: 'string', default: '40' },
    },
  })
  const asked = (['help', 'memory', 'prune', 'guest'] as const).find((name) => values[name])
  const mode = asked ?? 'compare'
  return {
    mode,
    json: values.json,
    sizeBytes: wholeMib(positive('--gib', values.gib ?? defaultGib[mode]) * 2 ** 30),
    rounds: positive('--rounds', values.rounds),
    workloads: values.workloads.split(',').map(workloadOf),
    only: new RegExp(values.only),
    dir: values.dir,
    diskBytes: wholeMib(positive('--tib', values.tib) * 2 ** 40),
    disks: positive('--disks', values.disks),
    points: positive('--points', values.points),
  }
}

const wholeMib = (bytes: number) => Math.max(1, Math.round(bytes / 2 ** 20)) * 2 ** 20

function positive(option: string, text: string): number {
  const value = Number(text)
  if (!(value > 0)) throw new Error(`${option} takes a number above 0, not ${text}`)
  return value
}

function workloadOf(name: string): Workload {
  const found = workloads.find((workload) => workload === name.trim())
  if (!found) throw new Error(`--workloads knows ${workloads.join(', ')}, not ${name}`)
  return found
}
