/**
 * One copy cycle of one VM (DESIGN §5).
 *
 *   snapshot open   read, hash, compare with the stored leaves, keep what differs in memory
 *   snapshot closed compress, pack, write to the buffer as an unsealed delta, in several transactions
 *   seal            one transaction: delta, manifest, leaves, disks, sealed seq
 *
 * While the VM stands still for the snapshot nothing else happens, unless more changed than `collectBytes`: then the
 * rest of the cycle writes while the snapshot is open. A snapshot for which nobody waits is written as it is read.
 * Whatever goes wrong before the seal leaves the stored trees untouched, so the next cycle finds the same changes again
 * (I13).
 */
import { BLOCK_BYTES } from '#shared/blocks/block.ts'
import { OwnMemory } from '#shared/blocks/own-memory.ts'
import type { DiskId } from '#shared/ids.ts'
import { detectAnomaly } from '#shared/policy/anomaly.ts'
import type { DeltaHeader } from '../buffer/delta-header.ts'
import type { VmRow } from '../buffer/vm-rows.ts'
import type { Snapshot } from '../hypervisor/port.ts'
import { Collector } from './collector.ts'
import { Compressibility } from './compressibility.ts'
import { BufferOverflow, DeltaWriter } from './delta-writer.ts'
import { type DiskTree, openDiskTrees, storeDiskTrees } from './disk-trees.ts'
import { startOfWalk } from './disk-walk.ts'
import type { EngineDeps } from './engine-deps.ts'
import type { KeptPayload, NewestPayload } from './kept-payload.ts'
import { READ_BYTES } from './limits.ts'
import { Pace } from './pace.ts'
import type { CaptureOptions } from './port.ts'
import { type CheckedDisk, type DiskReading, type ProofPlan, readDisk } from './read-disk.ts'

/** What is compared in this cycle beside what the tracker names. `passMs`: a whole disk within this time; 0: nothing. */
export type ProofWish =
  | { readonly kind: 'walk'; readonly passMs: number }
  | { readonly kind: 'sample'; readonly percent: number }

/** The tracker of a disk called blocks unchanged that had changed. The whole disk was compared, so the delta is right. */
export interface CaptureFinding {
  readonly kind: 'tracker-wrong'
  readonly diskId: DiskId
  readonly blocks: number
}

export interface CycleRequest {
  readonly vm: VmRow
  readonly compress: boolean
  /** Where the payload of this delta may stay until it is sent. */
  readonly kept: NewestPayload
  readonly proof: ProofWish
  readonly quiesce: boolean
  readonly writes: CaptureOptions['writes']
  /** Since the cycle before; 0: not known. */
  readonly elapsedMs: number
  readonly hold: 'brief' | 'long'
  /** The unsealed delta has this row now; garbage collection must spare it. */
  readonly onWriting: (delta: number) => void
}

export type CycleOutcome =
  | {
      readonly kind: 'sealed'
      readonly seq: number
      readonly findings: readonly CaptureFinding[]
      readonly checked: readonly CheckedDisk[]
      readonly notQuiesced: string | undefined
    }
  /** The instant did not hold to the end of reading. */
  | { readonly kind: 'torn' }
  /** The VM was forgotten, fenced or marked for a synchronization meanwhile. */
  | { readonly kind: 'overtaken' }

interface Cycle {
  readonly trees: readonly DiskTree[]
  /** Of the disks that were read, in the order of `trees`. */
  readonly readings: DiskReading[]
  readonly writer: DeltaWriter
  readonly collector: Collector
  readonly compressibility: Compressibility
  readonly pace: Pace
}

export async function runCaptureCycle(deps: EngineDeps, request: CycleRequest): Promise<CycleOutcome> {
  const startedMs = deps.clock.monotonicMs()
  const { vm, hold, quiesce } = request
  const { fabricVmId, sealedSeq } = vm
  using collector = new Collector()
  using memory = new DisposableStack()
  using kept = request.kept.open()
  const snapshot = await deps.hypervisor.openSnapshot({ fabricVmId, hold, seq: sealedSeq + 1, quiesce })
  let cycle: Cycle
  let intact = false
  try {
    deps.crashPoint('capture.snapshot-open')
    cycle = openCycle(deps, request, { snapshot, collector, kept, memory })
    await readChanges(deps, { ...request, cycle, snapshot })
  } finally {
    intact = snapshot.close().intact
  }
  deps.crashPoint('capture.snapshot-closed')
  if (!intact) return { kind: 'torn' }
  await drain(cycle)
  const delta = cycle.writer.finish()
  const captureMs = deps.clock.monotonicMs() - startedMs
  const header = headerOf(cycle, { snapshot, vm, captureMs, writes: request.writes })
  const outcome = seal(deps, { vm, delta, header, cycle, notQuiesced: snapshot.notQuiesced })
  if (outcome.kind === 'sealed') kept.sealed(delta)
  return outcome
}

function openCycle(
  deps: EngineDeps,
  { vm, compress, onWriting }: CycleRequest,
  {
    snapshot,
    collector,
    kept,
    memory,
  }: {
    readonly snapshot: Snapshot
    readonly collector: Collector
    readonly kept: KeptPayload
    readonly memory: DisposableStack
  },
): Cycle {
  const trees = openDiskTrees(deps, vm.vmId, snapshot.disks)
  const options = {
    buffer: deps.buffer,
    key: { vmId: vm.vmId, epoch: vm.epoch, seq: vm.sealedSeq + 1 },
    compress,
    kept,
    maxBytes: deps.limits.bufferMaxBytes,
    transactionBytes: deps.limits.transactionBytes,
    onWritten(delta: number) {
      onWriting(delta)
      deps.crashPoint('capture.rows-written')
    },
  }
  return {
    trees,
    readings: [],
    writer: memory.use(new DeltaWriter(options)),
    collector,
    compressibility: new Compressibility(),
    pace: new Pace(deps.clock, deps.limits.paceMs),
  }
}

async function readChanges(
  deps: EngineDeps,
  {
    cycle,
    snapshot,
    proof,
    elapsedMs,
  }: CycleRequest & { readonly cycle: Cycle; readonly snapshot: Snapshot },
): Promise<void> {
  const { limits, rng } = deps
  const { collector, pace, trees } = cycle
  using memory = new OwnMemory(READ_BYTES)
  const scratch = memory.bytes
  const plan: ProofPlan =
    proof.kind === 'sample'
      ? { ...proof, offset: rng.next() }
      : { ...proof, elapsedMs, maxBlocks: Math.floor(limits.proveBytes / BLOCK_BYTES) }
  const pendingBytes = () => trees.reduce((sum, { tree }) => sum + tree.pendingBytes, 0)
  const openedFreezeMs = snapshot.freezeMs()
  const standsStill = () => snapshot.freezeMs() > openedFreezeMs
  for (const [position, disk] of snapshot.disks.entries()) {
    const entry = trees[position]
    if (!entry) continue
    const onChange = (blockIndex: number, block: Buffer | null) => {
      collector.add(position, blockIndex, block)
      if (pendingBytes() > limits.pendingTreeBytes) throw new BufferOverflow(true)
      if (collector.bytes < limits.transactionBytes) return undefined
      return collector.bytes >= limits.collectBytes || !standsStill() ? drain(cycle) : undefined
    }
    const { capturedAtMs } = snapshot
    cycle.readings.push(await readDisk({ disk, entry, proof: plan, capturedAtMs, scratch, pace, onChange }))
  }
}

function drain({ collector, compressibility, writer, pace }: Cycle): Promise<void> {
  return collector.drain((disk, blockIndex, block) => {
    if (block) compressibility.add(block)
    writer.add(disk, blockIndex, block)
  }, pace)
}

function headerOf(
  cycle: Cycle,
  {
    snapshot,
    vm,
    captureMs,
    writes,
  }: Pick<CycleRequest, 'vm' | 'writes'> & { readonly snapshot: Snapshot; readonly captureMs: number },
): DeltaHeader {
  const total = (count: (reading: DiskReading) => number) =>
    cycle.readings.reduce((sum, reading) => sum + count(reading), 0)
  const changedBlocks = total((reading) => reading.changedBlocks)
  const { storedShare } = cycle.compressibility
  const seconds = (writes?.elapsedMs ?? 0) / 1000
  const suspect =
    writes && detectAnomaly(writes.history, { changedBlocks, storedShare, seconds }, snapshot.capturedAtMs)
  return {
    baseSeq: vm.sealedSeq,
    // The wire's times are whole milliseconds.
    capturedAtMs: Math.round(snapshot.capturedAtMs),
    consistency: snapshot.consistency,
    disks: cycle.trees.map(({ row: { diskId, sizeBytes } }, position) => ({
      diskId,
      sizeBytes,
      batchCount: cycle.writer.batchCount(position),
    })),
    stats: {
      scannedBytes: total((reading) => reading.scannedBytes),
      changedBlocks,
      changedBytes: changedBlocks * BLOCK_BYTES,
      storedBytes: cycle.writer.storedBytes,
      freezeMs: snapshot.freezeMs(),
      captureMs,
      storedShare,
      suspect: suspect ?? '',
    },
  }
}

function seal(
  deps: EngineDeps,
  request: {
    vm: VmRow
    delta: number
    header: DeltaHeader
    cycle: Cycle
    notQuiesced: string | undefined
  },
): CycleOutcome {
  const { vm, delta, header, cycle, notQuiesced } = request
  const seq = vm.sealedSeq + 1
  const manifest = deps.sign({
    vaultId: deps.vaultId,
    vmId: vm.vmId,
    epoch: vm.epoch,
    seq,
    capturedAtMs: header.capturedAtMs,
    consistency: header.consistency,
    disks: cycle.trees.map(({ row: { diskId, sizeBytes }, tree }, position) => ({
      diskId,
      sizeBytes,
      root: tree.root(sizeBytes),
      changedBlocks: cycle.readings[position]?.changedBlocks ?? 0,
    })),
    sourceServerId: deps.serverId,
    suspect: header.stats.suspect,
  })
  let sealed = false
  deps.crashPoint('capture.before-seal')
  deps.buffer.atomically(() => {
    // Acknowledgements, fences and requests for a synchronization came in while the disks were read.
    const now = deps.buffer.vms.get(vm.vmId)
    if (now?.epoch !== vm.epoch || now.sealedSeq !== vm.sealedSeq || now.needsSync !== null) return
    deps.buffer.deltas.seal(delta, header, manifest)
    storeDiskTrees(deps.buffer, vm.vmId, disksOf(cycle))
    deps.crashPoint('capture.in-seal')
    deps.buffer.vms.put({ ...now, sealedSeq: seq })
    sealed = true
  })
  deps.crashPoint('capture.after-seal')
  if (!sealed) return { kind: 'overtaken' }
  const checked = cycle.readings.map((reading) => reading.checked)
  return { kind: 'sealed', seq, findings: checked.flatMap(findingOf), checked, notQuiesced }
}

function disksOf({ trees, readings }: Cycle): { entry: DiskTree; walk: DiskReading['walk'] }[] {
  return trees.map((entry, position) => ({ entry, walk: readings[position]?.walk ?? startOfWalk }))
}

function findingOf({ diskId, untrackedBlocks }: CheckedDisk): CaptureFinding[] {
  return untrackedBlocks > 0 ? [{ kind: 'tracker-wrong', diskId, blocks: untrackedBlocks }] : []
}
