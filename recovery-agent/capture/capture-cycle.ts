/**
 * One copy cycle of one VM (DESIGN §5).
 *
 *   snapshot open   read, hash, compare with the stored leaves, keep what differs in memory
 *   snapshot closed compress, pack, write to the buffer as an unsealed delta, in several transactions
 *   seal            one transaction: delta, manifest, leaves, disks, sealed seq
 *
 * A VM may stand still while the snapshot is open, so nothing else happens in that time, unless more changed than
 * `collectBytes`: then the rest of the cycle writes while the snapshot is open. Whatever goes wrong before the seal
 * leaves the stored trees untouched, so the next cycle finds the same changes again (I13).
 */
import { BLOCK_BYTES } from '#shared/blocks/block.ts'
import { GROUP_CHILDREN } from '#shared/blocks/hash-tree.ts'
import type { DeltaHeader } from '../buffer/delta-header.ts'
import type { VmRow } from '../buffer/vm-rows.ts'
import type { Snapshot } from '../hypervisor/port.ts'
import { Collector } from './collector.ts'
import { BufferOverflow, DeltaWriter } from './delta-writer.ts'
import { type DiskTree, openDiskTrees, storeDiskTrees } from './disk-trees.ts'
import type { EngineDeps } from './engine-deps.ts'
import { READ_BYTES } from './limits.ts'
import { Pace } from './pace.ts'
import { scanDisk } from './scan.ts'

export interface CycleRequest {
  readonly vm: VmRow
  readonly compress: boolean
  readonly hold: 'brief' | 'long'
  /** The unsealed delta has this row now; garbage collection must spare it. */
  readonly onWriting: (delta: number) => void
}

export type CycleOutcome =
  | { readonly kind: 'sealed'; readonly seq: number }
  /** The instant did not hold to the end of reading. */
  | { readonly kind: 'torn' }
  /** The VM was forgotten, fenced or marked for a synchronization meanwhile. */
  | { readonly kind: 'overtaken' }

interface Cycle {
  readonly trees: readonly DiskTree[]
  readonly changedBlocks: number[]
  readonly writer: DeltaWriter
  readonly collector: Collector
  readonly pace: Pace
  scannedBytes: number
  changedGroups: number
}

export async function runCaptureCycle(deps: EngineDeps, request: CycleRequest): Promise<CycleOutcome> {
  const startedMs = deps.clock.monotonicMs()
  const { vm, hold } = request
  const { fabricVmId, sealedSeq } = vm
  const snapshot = await deps.hypervisor.openSnapshot({ fabricVmId, hold, seq: sealedSeq + 1 })
  let cycle: Cycle
  let intact = false
  try {
    deps.crashPoint('capture.snapshot-open')
    cycle = openCycle(deps, request, snapshot)
    await readChanges(deps, cycle, snapshot)
  } finally {
    intact = snapshot.close().intact
  }
  deps.crashPoint('capture.snapshot-closed')
  if (!intact) return { kind: 'torn' }
  await drain(cycle)
  const delta = cycle.writer.finish()
  const header = headerOf(cycle, snapshot, vm, deps.clock.monotonicMs() - startedMs)
  return seal(deps, { vm, delta, header, cycle })
}

function openCycle(deps: EngineDeps, { vm, compress, onWriting }: CycleRequest, snapshot: Snapshot): Cycle {
  const trees = openDiskTrees(deps, vm.vmId, snapshot.disks)
  const writer = new DeltaWriter({
    buffer: deps.buffer,
    key: { vmId: vm.vmId, epoch: vm.epoch, seq: vm.sealedSeq + 1 },
    compress,
    maxBytes: deps.limits.bufferMaxBytes,
    transactionBytes: deps.limits.transactionBytes,
    onWritten(delta) {
      onWriting(delta)
      deps.crashPoint('capture.rows-written')
    },
  })
  return {
    trees,
    changedBlocks: trees.map(() => 0),
    writer,
    collector: new Collector(),
    pace: new Pace(deps.clock, deps.limits.paceMs),
    scannedBytes: 0,
    changedGroups: 0,
  }
}

async function readChanges(deps: EngineDeps, cycle: Cycle, snapshot: Snapshot): Promise<void> {
  const { collector, pace } = cycle
  const scratch = Buffer.allocUnsafeSlow(READ_BYTES)
  for (const [position, disk] of snapshot.disks.entries()) {
    const entry = cycle.trees[position]
    if (!entry) continue
    let lastGroup = -1
    const onChange = (blockIndex: number, block: Buffer | null) => {
      collector.add(position, blockIndex, block)
      cycle.changedBlocks[position] = (cycle.changedBlocks[position] ?? 0) + 1
      const group = Math.floor(blockIndex / GROUP_CHILDREN)
      if (group !== lastGroup && ++cycle.changedGroups > deps.limits.changedGroups)
        throw new BufferOverflow(true)
      lastGroup = group
      return collector.bytes >= deps.limits.collectBytes ? drain(cycle) : undefined
    }
    const { tree, formerSizeBytes } = entry
    cycle.scannedBytes += await scanDisk({ disk, tree, formerSizeBytes, scratch, pace, onChange })
  }
}

function drain({ collector, writer, pace }: Cycle): Promise<void> {
  return collector.drain((disk, blockIndex, block) => writer.add(disk, blockIndex, block), pace)
}

function headerOf(cycle: Cycle, snapshot: Snapshot, vm: VmRow, captureMs: number): DeltaHeader {
  const changedBlocks = cycle.changedBlocks.reduce((sum, count) => sum + count, 0)
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
      scannedBytes: cycle.scannedBytes,
      changedBlocks,
      changedBytes: changedBlocks * BLOCK_BYTES,
      storedBytes: cycle.writer.storedBytes,
      freezeMs: snapshot.freezeMs(),
      captureMs,
    },
  }
}

function seal(
  deps: EngineDeps,
  { vm, delta, header, cycle }: { vm: VmRow; delta: number; header: DeltaHeader; cycle: Cycle },
): CycleOutcome {
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
      changedBlocks: cycle.changedBlocks[position] ?? 0,
    })),
    sourceServerId: deps.serverId,
    suspect: '',
  })
  let sealed = false
  deps.crashPoint('capture.before-seal')
  deps.buffer.atomically(() => {
    // Acknowledgements, fences and requests for a synchronization came in while the disks were read.
    const now = deps.buffer.vms.get(vm.vmId)
    if (now?.epoch !== vm.epoch || now.sealedSeq !== vm.sealedSeq || now.needsSync !== null) return
    deps.buffer.deltas.seal(delta, header, manifest)
    storeDiskTrees(deps.buffer, vm.vmId, cycle.trees)
    deps.crashPoint('capture.in-seal')
    deps.buffer.vms.put({ ...now, sealedSeq: seq })
    sealed = true
  })
  deps.crashPoint('capture.after-seal')
  return sealed ? { kind: 'sealed', seq } : { kind: 'overtaken' }
}
