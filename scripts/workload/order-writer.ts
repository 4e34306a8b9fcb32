/**
 * The guest program of the demo: writes order n to disk 0, makes it durable, then writes n to disk 1, with payload in
 * random blocks of both. Started again on any state of the disks it goes on from what it finds, and it refuses a
 * state the VM was never in. SIGTERM finishes the order in hand.
 */
import { closeSync, fdatasyncSync, fstatSync, openSync, writeFileSync, writeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { z } from 'zod'
import { intBelow, type Rng, seededRng } from '#shared/rng.ts'
import { type ContentSource, openContent } from './content.ts'
import { encodeRecord, RING_BYTES, readCounters, recordOffset } from './records.ts'

export { readCounters } from './records.ts'

const BLOCK_BYTES = 65_536
const HEARTBEAT_MS = 250
/** Told apart from a crash: the disks are in a state that never was. */
const EXIT_INCONSISTENT = 3

const settings = z.strictObject({
  /** Pause between two orders. */
  'interval-ms': z.coerce.number().min(0).default(50),
  /** Payload blocks written with each order. */
  'payload-blocks': z.coerce.number().int().min(0).default(2),
  /** Payload goes into this much of each disk. */
  'working-set-mib': z.coerce.number().positive().default(16),
  /** 0: nothing compresses, 1: everything. */
  compressible: z.coerce.number().min(0).max(1).default(0.5),
  seed: z.coerce.number().int().default(1),
})

const environment = z.object({
  HOTSITE_VM_HEARTBEAT: z.string(),
  HOTSITE_VM_DISKS: z
    .string()
    .transform((text): unknown => JSON.parse(text))
    .pipe(z.array(z.strictObject({ id: z.string(), name: z.string(), path: z.string() })).min(2)),
})

interface Disk {
  readonly fd: number
  readonly payloadBlocks: number
}

const say = (line: string) => process.stdout.write(`${new Date().toISOString()} ${line}\n`)

async function main(): Promise<void> {
  const options = Object.fromEntries(
    Object.keys(settings.shape).map((name) => [name, { type: 'string' as const }]),
  )
  const config = settings.parse({ ...parseArgs({ options }).values })
  const { HOTSITE_VM_DISKS: given, HOTSITE_VM_HEARTBEAT: heartbeat } = environment.parse(process.env)
  const paths = given.map((disk) => disk.path)
  const found = readCounters(paths)
  say(`recovered n0=${found.n0}, n1=${found.n1}, torn=${found.torn}`)
  if (!found.consistent) {
    say('these disks never were in this state together: refusing to go on')
    process.exitCode = EXIT_INCONSISTENT
    return
  }
  let stopping = false
  process.once('SIGTERM', () => {
    stopping = true
  })
  const disks = paths.map((path) => openDisk(path, config['working-set-mib'] * 1024 * 1024))
  const rng = seededRng(config.seed + found.n0)
  const content = openContent(rng, config.compressible)
  let beatAtMs = 0
  // An order that reached only disk 0 is finished first.
  let n = found.n1
  while (!stopping) {
    n++
    for (let i = 0; i < config['payload-blocks']; i++) writePayload({ disks, rng, content })
    writeOrder(disks, n)
    if (Date.now() - beatAtMs >= HEARTBEAT_MS || Date.now() < beatAtMs) {
      beatAtMs = Date.now()
      writeFileSync(heartbeat, `${n}\n`)
    }
    await sleep(config['interval-ms'])
  }
  for (const disk of disks) closeSync(disk.fd)
  say(`stopped after order ${n}`)
}

function openDisk(path: string, workingSetBytes: number): Disk {
  const fd = openSync(path, 'r+')
  const roomBytes = Math.min(fstatSync(fd).size - RING_BYTES, workingSetBytes)
  return { fd, payloadBlocks: Math.max(0, Math.floor(roomBytes / BLOCK_BYTES)) }
}

function writeOrder(disks: readonly Disk[], n: number): void {
  const record = encodeRecord(n, Date.now())
  for (const disk of disks.slice(0, 2)) {
    writeSync(disk.fd, record, 0, record.length, recordOffset(n))
    fdatasyncSync(disk.fd)
  }
}

function writePayload(request: { disks: readonly Disk[]; rng: Rng; content: ContentSource }): void {
  const { disks, rng, content } = request
  const disk = disks[intBelow(rng, disks.length)]
  if (!disk || disk.payloadBlocks === 0) return
  const offsetBytes = RING_BYTES + intBelow(rng, disk.payloadBlocks) * BLOCK_BYTES
  writeSync(disk.fd, content.take(BLOCK_BYTES), 0, BLOCK_BYTES, offsetBytes)
}

if (import.meta.main) await main()
