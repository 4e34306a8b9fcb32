import type { BatchRequest, CaptureEngine, SealedDelta, StoredBatch } from '#recovery-agent/capture/port.ts'
import type { DiskId } from '#shared/ids.ts'
import { limits } from '../../limits.ts'
import type { Turns } from '../turns.ts'
import type { Conversation } from './conversation.ts'
import { readAhead } from './read-ahead.ts'

export type TransferEngine = Pick<CaptureEngine, 'readBatch' | 'acknowledge' | 'openSync'>

/** What moving blocks of one VM takes. */
export interface Transfer {
  readonly conversation: Conversation
  readonly turns: Turns
  /** When this VM's data becomes older than its policy wants; null while synchronizing. */
  readonly deadlineMs: number | null
  /** Waits until the policy's throttle lets `bytes` pass. */
  readonly throttle: (bytes: number, signal: AbortSignal) => Promise<void>
  readonly onSent: (payloadBytes: number) => void
  /** Ends with the attempt or with the conversation, whichever is first. */
  readonly signal: AbortSignal
}

export interface HowToSend {
  readonly kind: 'delta' | 'union' | 'backfill'
  readonly owed?: BatchRequest['owed']
  /** Asked after each batch; true: the rest comes another time. */
  readonly mustPause?: () => boolean
}

/**
 * `sent`: the target holds the point; the caller acknowledges. `paused`: it keeps what came. Rejects with the refusal or
 * the broken link.
 */
export async function sendDelta(
  transfer: Transfer,
  engine: Pick<CaptureEngine, 'readBatch'>,
  delta: SealedDelta,
  { kind, owed, mustPause = () => false }: HowToSend,
): Promise<'sent' | 'paused'> {
  const { conversation, signal } = transfer
  const { vmId, epoch, seq } = delta
  const begun = await conversation.request(
    {
      kind: 'deltaBegin',
      body: {
        vmId,
        epoch,
        seq,
        baseSeq: delta.baseSeq,
        kind,
        capturedAtMs: delta.capturedAtMs,
        consistency: delta.consistency,
        disks: delta.disks.map(({ diskId, sizeBytes }) => ({ diskId, sizeBytes })),
      },
    },
    { kinds: ['deltaAccepted', 'pointAck'], matches: ({ body }) => body.seq === seq },
    signal,
  )
  if (begun.kind === 'pointAck') return 'sent'
  const batches = batchesOf(engine, delta, { resume: begun.body.resume, owed })
  for await (const { diskId, stored } of readAhead(batches, limits.batchesAhead)) {
    await sendBatch(transfer, { epoch, seq, diskId }, stored)
    if (mustPause()) return 'paused'
  }
  await endDelta(transfer, {
    epoch,
    seq,
    manifest: delta.manifest,
    batches: delta.disks.map(({ diskId, batchCount }) => ({ diskId, nextBatch: batchCount })),
  })
  return 'sent'
}

async function* batchesOf(
  engine: Pick<CaptureEngine, 'readBatch'>,
  { vmId, seq, firstSeq, disks }: SealedDelta,
  {
    resume,
    owed,
  }: {
    readonly resume: readonly { readonly diskId: string; readonly nextBatch: number }[]
    readonly owed: BatchRequest['owed']
  },
): AsyncGenerator<{ readonly diskId: DiskId; readonly stored: StoredBatch }> {
  for (const { diskId, batchCount } of disks) {
    const first = resume.find((disk) => disk.diskId === diskId)?.nextBatch ?? 0
    for (let batch = first; batch < batchCount; batch++) {
      const request = { vmId, seq, firstSeq, diskId, batch, ...(owed ? { owed } : {}) }
      yield { diskId, stored: await engine.readBatch(request) }
    }
  }
}

export async function sendBatch(
  { conversation, turns, deadlineMs, throttle, onSent, signal }: Transfer,
  place: { readonly epoch: number; readonly seq: number; readonly diskId: DiskId },
  stored: StoredBatch,
): Promise<void> {
  const { vmId } = conversation
  const { payload } = stored
  await conversation.takeCredit(payload.length, signal)
  await throttle(payload.length, signal)
  await turns.take({ vmId, deadlineMs }, signal, () =>
    conversation.send(
      {
        kind: 'blocks',
        body: {
          vmId,
          ...place,
          batch: stored.batch,
          blockIndexes: stored.blockIndexes,
          storedBytes: stored.storedBytes,
        },
        ...(payload.length > 0 ? { tail: payload } : {}),
      },
      stored.release,
    ),
  )
  onSent(payload.length)
}

/** Sends the signed description and waits for the point. */
export async function endDelta(
  { conversation, signal }: Transfer,
  end: {
    readonly epoch: number
    readonly seq: number
    readonly manifest: Uint8Array
    readonly batches: readonly { readonly diskId: DiskId; readonly nextBatch: number }[]
  },
): Promise<void> {
  await conversation.request(
    { kind: 'deltaEnd', body: { vmId: conversation.vmId, ...end } },
    { kinds: ['pointAck'], matches: ({ body }) => body.seq === end.seq && body.epoch === end.epoch },
    signal,
  )
}
