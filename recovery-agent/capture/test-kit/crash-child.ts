/**
 * A source and its target in one process that a test kills at any instant. Everything it knows is on disk: what lies
 * in the folder decides where it goes on, and it fails, loudly, when a delta is missing, a root differs, or a delta
 * that was sealed gives other bytes than before. The target makes a point durable before it acknowledges.
 *
 *   argv: folder, cycles (-1: for ever), 'sync' to begin with a synchronization
 */
import { createHash, randomBytes } from 'node:crypto'
import { appendFileSync, existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { systemClock } from '#shared/clock.ts'
import { crashPointFromEnv } from '#shared/crash-point.ts'
import { diskId, serverId, vaultId } from '#shared/ids.ts'
import { silentLog } from '#shared/log.ts'
import { systemRng } from '#shared/rng.ts'
import { keysFromSecret } from '#shared/trust/keys.ts'
import { signManifest } from '#shared/trust/point-manifest.ts'
import { defaultCaptureLimits } from '../limits.ts'
import { openCaptureEngine } from '../open-engine.ts'
import type { BatchRequest, SealedDelta } from '../port.ts'
import { FileHypervisor } from './file-hypervisor.ts'
import { sourceVm, vm } from './kit.ts'
import { applyDelta, batchesOf, ModelTarget, type Replication, synchronize } from './model-target.ts'

const MIB = 2 ** 20
const SIZES = [4 * MIB, MIB + 4096]
const [, , dir = '.', cycles = '1', first = ''] = process.argv

const digestsPath = join(dir, 'digests')
const targetPath = join(dir, 'target')
const keys = keysFromSecret(readFileSync(join(dir, 'key')))
const hypervisor = new FileHypervisor(dir)
for (const [i, size] of SIZES.entries()) hypervisor.addDisk(`disk-${i}`, size)

const engine = await openCaptureEngine({
  dataDir: join(dir, 'data'),
  hypervisor,
  vaultId: vaultId.parse('vault-1'),
  serverId: serverId.parse('server-1'),
  sign: (manifest) => signManifest(manifest, keys),
  clock: systemClock,
  rng: systemRng,
  log: silentLog,
  // Several transactions for each delta, some of them while the snapshot is open.
  limits: { ...defaultCaptureLimits, collectBytes: MIB, transactionBytes: MIB },
  crashPoint: crashPointFromEnv(process.env),
})
const replication: Replication = { engine, target: loadTarget(), vmId: vm, publicKey: keys.publicKey }
const { target } = replication
let synchronizations = 0

await engine.add(sourceVm, 'initial')
await engine.acknowledge(vm, target.seq)
await checkBuffered()
if (first === 'sync') await engine.requireSync(vm, 'requested')
process.stdout.write('ready\n')
for (let cycle = 0; cycle !== Number(cycles); cycle++) await runCycle()
await finish()

async function runCycle(): Promise<void> {
  if ((await engine.state(vm))?.needsSync) await synchronizeOnce()
  for (const disk of hypervisor.disksOfVm)
    hypervisor.write(disk, Math.floor(Math.random() * disk.sizeBytes * 0.5), randomBytes(disk.sizeBytes / 2))
  const outcome = await engine.capture(vm, { compress: true })
  if (outcome.kind !== 'sealed') throw new Error(`not sealed but ${outcome.kind}`)
  appendFileSync(digestsPath, `${outcome.delta.seq} ${await digestOf(outcome.delta)}\n`)
  // Two deltas wait in the buffer most of the time.
  if (outcome.delta.seq % 2 === 0) await deliver()
}

async function synchronizeOnce(): Promise<void> {
  synchronizations++
  await synchronize(replication, async () => storeTarget())
}

/** The newest of what waits comes first, and the oldest is owed until then. */
async function deliver(): Promise<void> {
  const waiting = (await engine.pendingDeltas(vm)).filter(({ seq }) => seq > target.seq)
  const [oldest, newest] = [waiting[0], waiting.at(-1)]
  if (oldest && newest && oldest !== newest) {
    const { epoch, seq, capturedAtMs, consistency } = oldest
    const points = [{ epoch, seq, capturedAtMs, consistency, suspect: false }]
    await engine.owe(vm, { baseSeq: target.seq, topSeq: newest.seq, points })
  }
  const delta = await engine.nextDelta(vm, target.seq, newest?.seq)
  if (delta) {
    await applyDelta(replication, delta)
    storeTarget()
    await engine.acknowledge(vm, delta.seq)
  }
  await bringOwed()
}

/** What is owed is there as it was sealed, whatever was acknowledged. */
async function bringOwed(): Promise<void> {
  for (const range of (await engine.state(vm))?.owed ?? []) {
    const [point] = range.points
    const owed = point && (await engine.owedDelta(vm, { baseSeq: range.baseSeq, seq: point.seq }))
    if (!owed) throw new Error(`a point below ${range.topSeq} is gone`)
    const before = sealedDigests().get(String(owed.seq))
    const now = await digestOf(owed, { topSeq: range.topSeq, whole: true })
    if (before && before !== now) throw new Error(`owed delta ${owed.seq} changed`)
    await engine.owe(vm, { ...range, points: [] })
  }
}

function sealedDigests(): ReadonlyMap<string, string> {
  const lines = existsSync(digestsPath) ? readFileSync(digestsPath, 'utf8').split('\n') : []
  return new Map(lines.map((line) => line.split(' ') as [string, string]))
}

/** Sealed deltas give the bytes they gave when they were sealed. */
async function checkBuffered(): Promise<void> {
  const known = sealedDigests()
  let delta = await engine.nextDelta(vm, target.seq)
  for (; delta; delta = await engine.nextDelta(vm, delta.seq)) {
    const before = known.get(String(delta.seq))
    if (before && before !== (await digestOf(delta))) throw new Error(`delta ${delta.seq} changed`)
  }
}

async function digestOf(delta: SealedDelta, owed?: BatchRequest['owed']): Promise<string> {
  const hash = createHash('sha256').update(delta.manifest)
  for (const [id, batch] of await batchesOf(engine, delta, owed))
    hash.update(`${id} ${batch.batch} ${batch.blockIndexes} ${batch.storedBytes}`).update(batch.payload)
  return hash.digest('hex')
}

async function finish(): Promise<void> {
  if ((await engine.state(vm))?.needsSync) await synchronizeOnce()
  await engine.capture(vm, { compress: true })
  await deliver()
  for (const disk of hypervisor.disksOfVm) {
    const bytes = target.disks.get(disk.diskId)?.bytes.subarray(0, disk.sizeBytes)
    if (!bytes?.equals(hypervisor.content(disk))) throw new Error(`${disk.diskId} differs`)
  }
  const { bufferedBytes } = await engine.usage()
  if (bufferedBytes !== 0) throw new Error(`${bufferedBytes} bytes are left in the buffer`)
  await engine[Symbol.asyncDispose]()
  process.stdout.write(`${JSON.stringify({ seq: target.seq, synchronizations })}\n`)
}

function storeTarget(): void {
  const disks = [...target.disks].map(([id, { sizeBytes, bytes }]) => [
    id,
    sizeBytes,
    bytes.toString('base64'),
  ])
  writeFileSync(`${targetPath}.tmp`, JSON.stringify({ seq: target.seq, disks }))
  renameSync(`${targetPath}.tmp`, targetPath)
}

function loadTarget(): ModelTarget {
  const loaded = new ModelTarget()
  if (!existsSync(targetPath)) return loaded
  const stored = JSON.parse(readFileSync(targetPath, 'utf8')) as {
    seq: number
    disks: [string, number, string][]
  }
  loaded.seq = stored.seq
  for (const [id, sizeBytes, bytes] of stored.disks)
    loaded.disks.set(diskId.parse(id), { sizeBytes, bytes: Buffer.from(bytes, 'base64') })
  return loaded
}
