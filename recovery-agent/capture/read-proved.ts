/**
 * Blocks a target has lost, told by their leaves: those that the disk still holds, and those of deltas that wait in the
 * buffer. Only what hashes to the leaf asked for is answered, so it does not matter what was read, nor whether the
 * snapshot held.
 */
import { BatchBuilder, unpackBatch } from '#shared/blocks/batch.ts'
import { BLOCK_BYTES } from '#shared/blocks/block.ts'
import { HASH_BYTES, leafOf } from '#shared/blocks/hash-tree.ts'
import { storeBlock } from '#shared/blocks/stored-block.ts'
import type { DiskId } from '#shared/ids.ts'
import type { VmRow } from '../buffer/vm-rows.ts'
import { PendingTree } from '../tree/leaf-store.ts'
import type { EngineDeps } from './engine-deps.ts'
import type { StoredBatch } from './port.ts'

export interface ProvedRequest {
  readonly diskId: DiskId
  /** Ascending, BATCH_BLOCKS at most. */
  readonly blockIndexes: readonly number[]
  /** 32 bytes for each. */
  readonly leaves: Uint8Array
}

/** Batches of the buffer looked through for one request: of 1 GiB of changes. */
const MAX_BATCHES = 1024

type Deps = Pick<EngineDeps, 'buffer' | 'hypervisor' | 'log'>

export async function readProved(deps: Deps, vm: VmRow, request: ProvedRequest): Promise<StoredBatch> {
  const { blockIndexes } = request
  const leaves = Buffer.from(request.leaves)
  const wanted = new Map(
    blockIndexes.map((blockIndex, i) => [blockIndex, leaves.subarray(i * HASH_BYTES, (i + 1) * HASH_BYTES)]),
  )
  const found = new Map<number, Buffer>()
  const offer = (blockIndex: number, block: Buffer) => {
    const leaf = wanted.get(blockIndex)
    if (leaf && leafOf(block).equals(leaf)) found.set(blockIndex, block)
  }
  await fromDisk(deps, vm, { diskId: request.diskId, wanted, offer })
  if (found.size < wanted.size) fromBuffer(deps, vm, { diskId: request.diskId, wanted, offer })
  const builder = new BatchBuilder()
  for (const blockIndex of [...found.keys()].sort((a, b) => a - b)) {
    const block = found.get(blockIndex)
    if (block) builder.add(blockIndex, storeBlock(block, true))
  }
  return { batch: 0, ...builder.take() }
}

interface Search {
  readonly diskId: DiskId
  readonly wanted: ReadonlyMap<number, Buffer>
  readonly offer: (blockIndex: number, block: Buffer) => void
}

/** The VM stands still for a few reads at most, and only when the stored tree says that they will find something. */
async function fromDisk({ buffer, hypervisor, log }: Deps, vm: VmRow, search: Search): Promise<void> {
  const row = buffer.vms.disks(vm.vmId).find(({ diskId }) => diskId === search.diskId)
  if (!row) return
  const tree = new PendingTree(buffer.leaves, row.tree)
  const likely = [...search.wanted].filter(
    ([blockIndex, leaf]) => blockIndex * BLOCK_BYTES < row.sizeBytes && tree.leaf(blockIndex).equals(leaf),
  )
  if (likely.length === 0) return
  const snapshot = await hypervisor.openSnapshot({ fabricVmId: vm.fabricVmId, hold: 'brief' })
  try {
    const disk = snapshot.disks.find(({ diskId }) => diskId === search.diskId)
    for (const [blockIndex] of disk ? likely : []) {
      const block = Buffer.alloc(BLOCK_BYTES)
      disk?.read(block, blockIndex * BLOCK_BYTES)
      search.offer(blockIndex, block)
    }
  } finally {
    snapshot.close()
  }
  log.debug('blocks read for a repair', { vmId: vm.vmId, diskId: search.diskId, blocks: likely.length })
}

function fromBuffer({ buffer }: Deps, vm: VmRow, search: Search): void {
  let left = MAX_BATCHES
  for (
    let delta = buffer.deltas.next(vm.vmId, vm.ackedSeq);
    delta;
    delta = buffer.deltas.next(vm.vmId, delta.seq)
  ) {
    const disk = delta.header.disks.findIndex(({ diskId }) => diskId === search.diskId)
    const batchCount = delta.header.disks[disk]?.batchCount ?? 0
    for (let batch = 0; batch < batchCount; batch++) {
      if (left-- === 0) return
      const packed = buffer.deltas.batch({ delta: delta.delta, disk, batch })
      if (!packed.blockIndexes.some((blockIndex) => search.wanted.has(blockIndex))) continue
      unpackBatch(packed).forEach((block, i) => {
        const blockIndex = packed.blockIndexes[i]
        if (block && blockIndex !== undefined) search.offer(blockIndex, block)
      })
    }
  }
}
