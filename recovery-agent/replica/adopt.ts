/**
 * Existing disks become the base of a replica, their leaves computed in the same pass (reverse replication): a
 * synchronization then sends only what differs.
 */
import { BLOCK_BYTES, blockCountOf, isZeroBlock } from '#shared/blocks/block.ts'
import { leafOf } from '#shared/blocks/hash-tree.ts'
import type { BlockFile } from '#shared/formats/block-file.ts'
import { LayerWriter } from '#shared/formats/qcow2/layer-writer.ts'
import type { ServerId, VmId } from '#shared/ids.ts'
import type { ReplicationPolicy } from '#shared/messages/policy.ts'
import type { StoppedDisk } from '../hypervisor/port.ts'
import { NbdClient } from '../nbd/client.ts'
import { PendingTree } from '../tree/leaf-store.ts'
import { treeOf } from './catalog/catalog.ts'
import type { ChainDisk } from './catalog/chain.ts'
import { type LeafGroup, leafGroupsOf } from './catalog/leaf-groups.ts'
import type { ReplicaContext } from './context.ts'
import { partSuffix } from './names.ts'

export interface AdoptRequest {
  readonly vmId: VmId
  readonly epoch: number
  readonly sourceServerId: ServerId
  readonly policy: ReplicationPolicy
  readonly disks: readonly StoppedDisk[]
}

const BATCH_BLOCKS = 16

/** Takes the place of whatever chain the VM has here; the caller saw to it that nobody stands on that. */
export function* adoptDisks(context: ReplicaContext, request: AdoptRequest): Generator<void, void> {
  const { catalog, clock, crash, files, paths } = context
  const { vmId, epoch, disks } = request
  const ref = { epoch, seq: 0 }
  const before = catalog.chain(vmId)
  const adopted: Adopted[] = []
  for (const disk of disks) {
    adopted.push(yield* convert(context, { vmId, ref, disk }))
    crash('replica.adopt-disk-written')
  }
  for (const { diskId } of disks) {
    const layer = paths.layer(vmId, diskId, ref)
    files.rename(layer + partSuffix, layer)
    files.syncFolder(paths.diskFolder(vmId, diskId))
  }
  files.syncFolder(paths.vmFolder(vmId))
  files.syncFolder(paths.replicas)
  crash('replica.adopt-files-durable')
  catalog.transaction(() => {
    for (const member of before) {
      catalog.removeFromChain(vmId, member.seq)
      for (const { diskId } of member.disks) catalog.dropTree(vmId, diskId)
    }
    const nowMs = clock.now()
    catalog.addToChain(
      vmId,
      {
        ...ref,
        state: 'base',
        capturedAtMs: nowMs,
        completedAtMs: nowMs,
        consistency: 'crash',
        pinned: false,
        disks: adopted.map(({ disk }) => disk),
      },
      null,
    )
    for (const { disk, groups, fileBytes } of adopted)
      catalog.layerLeaves.put({ vmId, diskId: disk.diskId, seq: ref.seq }, groups(), fileBytes)
    for (const { tree } of adopted) tree.flush()
    catalog.putReplica({
      vmId,
      state: 'active',
      epoch,
      sourceServerId: request.sourceServerId,
      policy: request.policy,
      disks: disks.map(({ diskId, sizeBytes }) => ({ diskId, sizeBytes })),
    })
  })
  crash('replica.adopt-committed')
}

interface Adopted {
  readonly disk: ChainDisk
  readonly tree: PendingTree
  readonly groups: () => Generator<readonly [groupIndex: number, group: LeafGroup], void>
  readonly fileBytes: number
}

function* convert(
  { catalog, files, paths }: ReplicaContext,
  {
    vmId,
    ref,
    disk,
  }: { vmId: VmId; ref: { epoch: number; seq: number }; disk: AdoptRequest['disks'][number] },
): Generator<void, Adopted> {
  const { diskId, sizeBytes } = disk
  files.ensureFolder(paths.diskFolder(vmId, diskId))
  const part = paths.layer(vmId, diskId, ref) + partSuffix
  const source = openSource(files, disk)
  try {
    const target = files.open(part, 'create')
    try {
      const writer = new LayerWriter(target)
      const tree = new PendingTree(catalog.leaves, treeOf(vmId, diskId))
      // Nothing of the chain that is about to be replaced.
      tree.resize(0)
      tree.resize(sizeBytes)
      yield* copyBlocks({
        sizeBytes,
        read: (buffer, offsetBytes) => source.read(buffer, offsetBytes),
        writer,
        tree,
      })
      writer.seal({ sizeBytes, backingName: null })
      return {
        disk: {
          diskId,
          sizeBytes,
          root: tree.root(sizeBytes),
          changedBytes: writer.changedBytes(),
          storedBytes: files.storedBytes(part),
        },
        tree,
        groups: () =>
          leafGroupsOf({
            entries: writer.entries(),
            hasBacking: false,
            leaf: (blockIndex) => tree.leaf(blockIndex),
          }),
        fileBytes: target.sizeBytes(),
      }
    } finally {
      target.close()
    }
  } finally {
    source.close()
  }
}

function openSource(
  files: ReplicaContext['files'],
  { path, kind }: StoppedDisk,
): Pick<BlockFile, 'read' | 'close'> {
  if (kind === 'raw') return files.open(path, 'read')
  const client = NbdClient.connect({
    socketPath: path,
    exportName: '',
    contexts: [],
  })
  return {
    read: (target, offsetBytes) => client.read(target, offsetBytes),
    close: () => client[Symbol.dispose](),
  }
}

function* copyBlocks(of: {
  sizeBytes: number
  read: (buffer: Buffer, offsetBytes: number) => void
  writer: LayerWriter
  tree: PendingTree
}): Generator<void, void> {
  const blockCount = blockCountOf(of.sizeBytes)
  const buffer = Buffer.allocUnsafe(BATCH_BLOCKS * BLOCK_BYTES)
  for (let first = 0; first < blockCount; first += BATCH_BLOCKS) {
    const count = Math.min(BATCH_BLOCKS, blockCount - first)
    const bytes = buffer.subarray(0, count * BLOCK_BYTES)
    of.read(bytes, first * BLOCK_BYTES)
    const beyond = (first + count) * BLOCK_BYTES - of.sizeBytes
    if (beyond > 0) bytes.fill(0, bytes.length - beyond)
    const indexes: number[] = []
    const blocks: Buffer[] = []
    for (let i = 0; i < count; i++) {
      const block = bytes.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES)
      if (isZeroBlock(block)) continue
      of.tree.setLeaf(first + i, leafOf(block))
      indexes.push(first + i)
      blocks.push(block)
    }
    of.writer.put(indexes, blocks)
    // No block comes again, so nothing has to be remembered of those that came.
    of.writer.markDurable()
    yield
  }
}
