/**
 * A synchronization, seen from the source: walk the hash tree of every disk from the top, and where source and target
 * differ go down and send. What is equal never travels (I7). For each range of groups:
 *
 *   ask the target's group hashes → hash the same groups of the held snapshot → for each that differs ask the 256
 *   leaves → send the blocks whose leaf differs
 *
 * A group the target has as all zero needs no question: its leaves are known. Interrupted, it starts over from a new
 * snapshot; what arrived is then found equal, at the cost of reading and hashing it again at the source.
 */
import type { CaptureStats, SyncSession } from '#recovery-agent/capture/port.ts'
import { blockCountOf } from '#shared/blocks/block.ts'
import { GROUP_BYTES, GROUP_CHILDREN, HASH_BYTES, ZERO_GROUP, ZERO_HASH } from '#shared/blocks/hash-tree.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { DiskId } from '#shared/ids.ts'
import { limits } from '../../limits.ts'
import { endDelta, sendBatch, type Transfer } from './send-delta.ts'

export interface SyncRun {
  readonly transfer: Transfer
  readonly session: SyncSession
  readonly epoch: number
  readonly compress: boolean
  readonly onProgress: (progress: { readonly doneBytes: number; readonly totalBytes: number }) => void
}

type SyncDisk = SyncSession['disks'][number]

/** Returns when the target holds the point and the session is committed. */
export async function runSync(run: SyncRun): Promise<CaptureStats> {
  const { session, transfer, epoch } = run
  const { seq } = session
  const resume = await begin(run)
  const totalBytes = session.disks.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
  let doneBytes = 0
  run.onProgress({ doneBytes, totalBytes })
  const batches: { diskId: DiskId; nextBatch: number }[] = []
  for (const disk of session.disks) {
    let nextBatch = resume.get(disk.diskId) ?? 0
    for (let first = 0; first < disk.groupCount; first += limits.syncRangeGroups) {
      const count = Math.min(limits.syncRangeGroups, disk.groupCount - first)
      nextBatch = await syncRange(run, disk, { first, count, nextBatch })
      doneBytes += Math.min(disk.sizeBytes - first * groupSpanBytes, count * groupSpanBytes)
      run.onProgress({ doneBytes, totalBytes })
    }
    batches.push({ diskId: disk.diskId, nextBatch })
  }
  const { manifest, stats } = await session.manifest()
  await endDelta(transfer, { epoch, seq, manifest, batches })
  await session.commit()
  return stats
}

const groupSpanBytes = GROUP_CHILDREN * 65_536

async function begin({ session, transfer, epoch }: SyncRun): Promise<ReadonlyMap<string, number>> {
  const { conversation, signal } = transfer
  const accepted = await conversation.request(
    {
      kind: 'deltaBegin',
      body: {
        vmId: conversation.vmId,
        epoch,
        seq: session.seq,
        baseSeq: session.baseSeq,
        kind: 'sync',
        capturedAtMs: session.capturedAtMs,
        consistency: session.consistency,
        disks: session.disks.map(({ diskId, sizeBytes }) => ({ diskId, sizeBytes })),
      },
    },
    { kinds: ['deltaAccepted', 'pointAck'], matches: ({ body }) => body.seq === session.seq },
    signal,
  )
  if (accepted.kind === 'pointAck') {
    // A point of this number exists already, made from another snapshot: this one has to come after it.
    throw new HotsiteError('base-unknown', `the target has a point ${session.seq} already`)
  }
  return new Map(accepted.body.resume.map(({ diskId, nextBatch }) => [diskId, nextBatch]))
}

/** Answers the number of the next batch. */
async function syncRange(
  run: SyncRun,
  disk: SyncDisk,
  range: { readonly first: number; readonly count: number; readonly nextBatch: number },
): Promise<number> {
  const { session, transfer, epoch, compress } = run
  const { diskId } = disk
  const targetNodes = await askNodes(run, disk, { level: 1, first: range.first, count: range.count })
  const groups = await session.differingGroups({ diskId, first: range.first, targetNodes })
  let { nextBatch } = range
  for (const group of groups) {
    const offset = (group - range.first) * HASH_BYTES
    const node = targetNodes.subarray(offset, offset + HASH_BYTES)
    const targetLeaves = node.equals(ZERO_HASH) ? ZERO_GROUP : await askLeaves(run, disk, group)
    const stored = await session.differingBlocks({
      diskId,
      group,
      targetLeaves,
      firstBatch: nextBatch,
      compress,
    })
    for (const batch of stored) {
      await sendBatch(transfer, { epoch, seq: session.seq, diskId }, batch)
      nextBatch = batch.batch + 1
    }
  }
  return nextBatch
}

async function askLeaves(run: SyncRun, disk: SyncDisk, group: number): Promise<Buffer> {
  const first = group * GROUP_CHILDREN
  const count = Math.min(GROUP_CHILDREN, blockCountOf(disk.sizeBytes) - first)
  const nodes = await askNodes(run, disk, { level: 0, first, count })
  const leaves = Buffer.alloc(GROUP_BYTES)
  nodes.copy(leaves)
  return leaves
}

async function askNodes(
  { session, transfer, epoch }: SyncRun,
  { diskId }: SyncDisk,
  query: { readonly level: 0 | 1; readonly first: number; readonly count: number },
): Promise<Buffer> {
  const { conversation, signal } = transfer
  const requestId = conversation.nextRequestId()
  const reply = await conversation.request(
    {
      kind: 'treeQuery',
      body: { vmId: conversation.vmId, epoch, seq: session.seq, diskId, ...query, requestId },
    },
    { kinds: ['treeNodes'], matches: ({ body }) => body.requestId === requestId },
    signal,
  )
  const nodes = reply.tail ?? Buffer.alloc(0)
  if (nodes.length !== query.count * HASH_BYTES) {
    throw new HotsiteError(
      'stream-malformed',
      `the target answered ${nodes.length} bytes of tree nodes; ${query.count * HASH_BYTES} were asked for`,
    )
  }
  return nodes
}
