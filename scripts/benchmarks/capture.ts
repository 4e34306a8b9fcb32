/**
 * How fast the capture engine reads, hashes, compresses and buffers, as ratios to plain reading of the same file in the
 * same run. `node scripts/benchmarks/capture.ts [--size-mib 1024] [--json]`. The median of three rounds each.
 */
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { closeSync, mkdtempSync, openSync, readSync, rmSync, statSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { blake3 } from '@napi-rs/blake-hash'
import { defaultCaptureLimits } from '#recovery-agent/capture/limits.ts'
import { openCaptureEngine } from '#recovery-agent/capture/open-engine.ts'
import type { CaptureEngine } from '#recovery-agent/capture/port.ts'
import type { HostHypervisor, Snapshot } from '#recovery-agent/hypervisor/port.ts'
import { systemClock } from '#shared/clock.ts'
import { noCrash } from '#shared/crash-point.ts'
import { diskId, fabricVmId, serverId, vaultId, vmId } from '#shared/ids.ts'
import { silentLog } from '#shared/log.ts'
import { systemRng } from '#shared/rng.ts'
import { generateKeys } from '#shared/trust/keys.ts'
import { signManifest } from '#shared/trust/point-manifest.ts'

const MIB = 2 ** 20
const ROUNDS = 3
const vm = vmId.parse('bench')
const { values: flags } = parseArgs({
  options: { 'size-mib': { type: 'string', default: '1024' }, json: { type: 'boolean', default: false } },
})
const sizeBytes = Number(flags['size-mib']) * MIB

interface Figure {
  readonly name: string
  readonly mibPerSecond: number
  readonly cpuSecondsPerGib: number
  /** Speed as a part of that of plain reading (or, for what writes, of plain copying). */
  readonly ratio: number
}

const dir = mkdtempSync(join(tmpdir(), 'hotsite-bench-'))
try {
  const figures = await measure(dir)
  process.stdout.write(flags.json ? `${JSON.stringify(figures)}\n` : table(figures))
} finally {
  rmSync(dir, { recursive: true, force: true })
}

async function measure(folder: string): Promise<Figure[]> {
  const image = join(folder, 'disk.raw')
  // Half of each block is text, so that compression has the usual ratio of about two.
  writeImage(image)
  const read = await timed('plain read, 1 MiB', () => readAll(image, () => {}))
  const hash = await timed('read + BLAKE3', () => readAll(image, (bytes) => hashBlocks(bytes)))
  const copy = await timed('cp', () => {
    execFileSync('cp', ['--reflink=never', image, join(folder, 'copy')])
    rmSync(join(folder, 'copy'))
  })
  const engine = await openEngine(folder, image)
  const sync = await timed('synchronization, compare only', () => compareOnly(engine))
  await commitSync(engine)
  const scan = await timed('cycle, nothing changed', () => captureAll(engine, true))
  const changed = await timed(
    'cycle, all changed, compressed',
    () => captureAll(engine, true),
    () => writeImage(image),
  )
  const raw = await timed(
    'cycle, all changed, not compressed',
    () => captureAll(engine, false),
    () => writeImage(image),
  )
  await engine[Symbol.asyncDispose]()
  const against = (base: Timing) => (timing: Timing) => figure(timing, base)
  return [...[read, hash, sync, scan].map(against(read)), ...[copy, changed, raw].map(against(copy))]
}

interface Timing {
  readonly name: string
  readonly elapsedMs: number
  readonly cpuMs: number
}

async function timed(
  name: string,
  work: () => Promise<void> | void,
  prepare: () => void = () => {},
): Promise<Timing> {
  const timings: Timing[] = []
  for (let round = 0; round < ROUNDS; round++) {
    prepare()
    const cpu = process.cpuUsage()
    const startedMs = performance.now()
    await work()
    const { user, system } = process.cpuUsage(cpu)
    timings.push({ name, elapsedMs: performance.now() - startedMs, cpuMs: (user + system) / 1000 })
  }
  const [median] = timings.sort((a, b) => a.elapsedMs - b.elapsedMs).slice(Math.floor(ROUNDS / 2))
  if (!median) throw new Error('no rounds')
  return median
}

function figure({ name, elapsedMs, cpuMs }: Timing, base: Timing): Figure {
  return {
    name,
    mibPerSecond: Math.round(sizeBytes / MIB / (elapsedMs / 1000)),
    cpuSecondsPerGib: Number(((cpuMs / 1000) * ((1024 * MIB) / sizeBytes)).toFixed(2)),
    ratio: Number((base.elapsedMs / elapsedMs).toFixed(2)),
  }
}

function table(figures: readonly Figure[]): string {
  const line = (cells: readonly (string | number)[]) =>
    `${String(cells[0]).padEnd(36)}${cells
      .slice(1)
      .map((cell) => String(cell).padStart(12))
      .join('')}\n`
  return (
    line(['', 'MiB/s', 'CPU s/GiB', 'ratio']) +
    figures.map((f) => line([f.name, f.mibPerSecond, f.cpuSecondsPerGib, f.ratio])).join('')
  )
}

function writeImage(path: string): void {
  const text = Buffer.alloc(32_768, 'The quick brown fox jumps over the lazy dog, again and again. ')
  const fd = openSync(path, 'w')
  for (let offset = 0; offset < sizeBytes; offset += MIB) {
    const chunk = randomBytes(MIB)
    for (let at = 0; at < MIB; at += 65_536) text.copy(chunk, at)
    writeSync(fd, chunk, 0, MIB, offset)
  }
  closeSync(fd)
}

function readAll(path: string, use: (bytes: Buffer) => void): void {
  const fd = openSync(path, 'r')
  const bytes = Buffer.allocUnsafeSlow(MIB)
  for (let offset = 0; offset < sizeBytes; offset += MIB) {
    readSync(fd, bytes, 0, MIB, offset)
    use(bytes)
  }
  closeSync(fd)
}

function hashBlocks(bytes: Buffer): void {
  for (let at = 0; at < bytes.length; at += 65_536) blake3(bytes.subarray(at, at + 65_536))
}

async function openEngine(folder: string, image: string): Promise<CaptureEngine> {
  const keys = generateKeys()
  const engine = await openCaptureEngine({
    dataDir: join(folder, 'data'),
    hypervisor: fileHypervisor(image),
    vaultId: vaultId.parse('bench'),
    serverId: serverId.parse('bench'),
    sign: (manifest) => signManifest(manifest, keys),
    clock: systemClock,
    rng: systemRng,
    log: silentLog,
    limits: defaultCaptureLimits,
    crashPoint: noCrash,
  })
  await engine.add({ vmId: vm, fabricVmId: fabricVmId.parse('bench'), epoch: 1 }, 'initial')
  return engine
}

function fileHypervisor(image: string): HostHypervisor {
  const openSnapshot = async (): Promise<Snapshot> => {
    const fd = openSync(image, 'r')
    const lengthBytes = statSync(image).size
    return {
      capturedAtMs: Date.now(),
      consistency: 'crash',
      disks: [
        {
          diskId: diskId.parse('disk'),
          sizeBytes: lengthBytes,
          changes: { kind: 'scan', reason: 'bench' },
          allocated: [{ offsetBytes: 0, lengthBytes }],
          read: (target, offsetBytes) => void readSync(fd, target, 0, target.length, offsetBytes),
        },
      ],
      freezeMs: () => 0,
      close() {
        closeSync(fd)
        return { intact: true }
      },
    }
  }
  return {
    recover: async () => {},
    disks: async () => [],
    openSnapshot,
    release: async () => {},
  }
}

async function compareOnly(engine: CaptureEngine): Promise<void> {
  await using session = await engine.openSync(vm, { newestSeq: 0 })
  for (const { diskId: id, groupCount } of session.disks)
    await session.differingGroups({ diskId: id, first: 0, targetNodes: Buffer.alloc(groupCount * 32) })
}

async function commitSync(engine: CaptureEngine): Promise<void> {
  await using session = await engine.openSync(vm, { newestSeq: 0 })
  for (const { diskId: id, groupCount } of session.disks)
    await session.differingGroups({ diskId: id, first: 0, targetNodes: Buffer.alloc(groupCount * 32) })
  await session.manifest()
  await session.commit()
}

/** The acknowledgement, which frees the buffer, counts too. */
async function captureAll(engine: CaptureEngine, compress: boolean): Promise<void> {
  const outcome = await engine.capture(vm, { compress })
  if (outcome.kind !== 'sealed') throw new Error(`not sealed but ${outcome.kind}`)
  await engine.acknowledge(vm, outcome.delta.seq)
}
