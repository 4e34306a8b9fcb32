/**
 * A synchronization, seen from the source: walk the hash tree of every disk from the top, and where source and target
 * differ go down and send. What is equal never travels (I7). Three steps run at the same time, each ahead of the next:
 *
 *   ask      the target's group hashes, range after range
 *   compare  hash the same groups of the held snapshot; for each that differs ask the 256 leaves; read what differs
 *   send     the blocks
 *
 * A group the target has as all zero needs no question: its leaves are known. Interrupted, it starts over from a new
 * snapshot; what arrived is then found equal, at the cost of reading and hashing it again at the source.
 */
import type { CaptureStats, StoredBatch, SyncSession } from '#recovery-agent/capture/port.ts'
import { BLOCK_BYTES, blockCountOf } from '#shared/blocks/block.ts'
import { GROUP_BYTES, GROUP_CHILDREN, HASH_BYTES, ZERO_GROUP, ZERO_HASH } from '#shared/blocks/hash-tree.ts'
import type { Clock } from '#shared/clock.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { DiskId } from '#shared/ids.ts'
import { limits } from '../../limits.ts'
import type { CompressionChoice } from './compression-choice.ts'
import { readAhead } from './read-ahead.ts'
import { endDelta, sendBatch, type Transfer } from './send-delta.ts'

export interface SyncRun {
  readonly transfer: Transfer
  readonly session: SyncSession
  readonly epoch: number
  /** The policy allows it. */
  readonly compress: boolean
  readonly choice: CompressionChoice
  /** There is nothing to choose at the moment (isLinkScarce). */
  readonly linkIsScarce: () => boolean
  readonly clock: Clock
  readonly onProgress: (progress: { readonly doneBytes: number; readonly totalBytes: number }) => void
}

type SyncDisk = SyncSession['disks'][number]

interface AskedRange {
  readonly disk: SyncDisk
  readonly first: number
  readonly count: number
  readonly targetNodes: Buffer
}

interface Compared {
  readonly diskId: DiskId
  readonly batches: readonly StoredBatch[]
  readonly compressed: boolean
  /** Of the disk, dealt with once these batches are sent. */
  readonly doneBytes: number
}

/** Returns when the target holds the point and the session is committed. */
export async function runSync(run: SyncRun): Promise<CaptureStats> {
  const { session, transfer, epoch, choice, clock } = run
  const { seq } = session
  const nextBatch = new Map(await begin(run))
  const totalBytes = session.disks.reduce((sum, disk) => sum + dataBytes(disk, 0, disk.groupCount), 0)
  let doneBytes = 0
  run.onProgress({ doneBytes, totalBytes })
  choice.begin(clock.monotonicMs())
  for await (const compared of readAhead(compare(run), limits.syncGroupsAhead)) {
    const { diskId } = compared
    for (const stored of compared.batches) {
      const batch = nextBatch.get(diskId) ?? 0
      await sendBatch(transfer, { epoch, seq, diskId }, { ...stored, batch })
      nextBatch.set(diskId, batch + 1)
      // How fast a throttle lets blocks through says nothing of the time after it.
      if (run.linkIsScarce()) {
        choice.begin(clock.monotonicMs())
        continue
      }
      choice.sent(
        {
          compressed: compared.compressed,
          storedBytes: stored.payload.length,
          rawBytes: stored.storedBytes.filter((bytes) => bytes > 0).length * BLOCK_BYTES,
        },
        clock.monotonicMs(),
      )
    }
    doneBytes += compared.doneBytes
    run.onProgress({ doneBytes, totalBytes })
  }
  const { manifest, stats } = await session.manifest()
  const batches = session.disks.map(({ diskId }) => ({ diskId, nextBatch: nextBatch.get(diskId) ?? 0 }))
  await endDelta(transfer, { epoch, seq, manifest, batches })
  await session.commit()
  return stats
}

/** What may hold data: everything else costs neither reading nor sending. */
function dataBytes({ groupDataBytes }: SyncDisk, first: number, count: number): number {
  return groupDataBytes.subarray(first, first + count).reduce((sum, bytes) => sum + bytes, 0)
}

/** What asking takes. */
export type SyncQuery = Pick<SyncRun, 'session' | 'transfer' | 'epoch'>

export async function begin({ session, transfer, epoch }: SyncQuery): Promise<ReadonlyMap<string, number>> {
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

export async function* askRanges(run: SyncQuery): AsyncGenerator<AskedRange> {
  for (const disk of run.session.disks) {
    for (let first = 0; first < disk.groupCount; ) {
      const count = rangeFrom(disk, first)
      yield { disk, first, count, targetNodes: await askNodes(run, disk, { level: 1, first, count }) }
      first += count
    }
  }
}

/** Groups from `first` on that are compared together: few that may hold data, and whatever is empty between them. */
function rangeFrom({ groupCount, groupDataBytes }: SyncDisk, first: number): number {
  const end = Math.min(groupCount, first + limits.treeQueryMaxNodes)
  let withData = 0
  let group = first
  for (; group < end; group++) {
    if ((groupDataBytes[group] ?? 0) === 0) continue
    if (withData === limits.syncRangeGroups) break
    withData += 1
  }
  return group - first
}

/** Group by group where something differs; the last item of a range brings the rest of its progress. */
async function* compare(run: SyncRun): AsyncGenerator<Compared> {
  const { session } = run
  for await (const { disk, first, count, targetNodes } of readAhead(askRanges(run), limits.syncRangesAhead)) {
    const { diskId } = disk
    const groups = await session.differingGroups({ diskId, first, targetNodes })
    for (const group of groups) {
      const offset = (group - first) * HASH_BYTES
      const isEmpty = targetNodes.subarray(offset, offset + HASH_BYTES).equals(ZERO_HASH)
      const targetLeaves = isEmpty ? ZERO_GROUP : await askLeaves(run, disk, group)
      const compressed = run.compress && (run.linkIsScarce() || run.choice.worthwhile)
      const request = { diskId, group, targetLeaves, firstBatch: 0, compress: compressed }
      yield { diskId, batches: await session.differingBlocks(request), compressed, doneBytes: 0 }
    }
    yield { diskId, batches: [], compressed: false, doneBytes: dataBytes(disk, first, count) }
  }
}

export async function askLeaves(run: SyncQuery, disk: SyncDisk, group: number): Promise<Buffer> {
  const first = group * GROUP_CHILDREN
  const count = Math.min(GROUP_CHILDREN, blockCountOf(disk.sizeBytes) - first)
  const nodes = await askNodes(run, disk, { level: 0, first, count })
  const leaves = Buffer.alloc(GROUP_BYTES)
  nodes.copy(leaves)
  return leaves
}

async function askNodes(
  { session, transfer, epoch }: SyncQuery,
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
