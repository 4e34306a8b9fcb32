/**
 * The target asks for blocks of its replica that rotted; what the source still has goes back. One request of a VM at a
 * time: a target that asks faster waits, and deltas never do.
 */
import { z } from 'zod'
import type { CaptureEngine } from '#recovery-agent/capture/port.ts'
import { BATCH_BLOCKS } from '#shared/blocks/batch.ts'
import { HASH_BYTES } from '#shared/blocks/hash-tree.ts'
import type { Message } from '#shared/channel/message.ts'
import { diskId } from '#shared/ids.ts'
import type { Logger } from '#shared/log.ts'
import type { Conversation } from './conversation.ts'

type RepairRequest = Extract<Message, { readonly kind: 'repairRequest' }>

const request = z.object({
  epoch: z.int().positive(),
  diskId,
  blockIndexes: z.array(z.int().nonnegative()).min(1).max(BATCH_BLOCKS),
  requestId: z.int().nonnegative(),
})

/** Handles what `Conversation` delivers; never rejects: a repair that does not succeed is asked for again. */
export function repairAnswers(options: {
  readonly engine: Pick<CaptureEngine, 'readProved'>
  readonly conversation: Pick<Conversation, 'send' | 'vmId' | 'signal'>
  readonly log: Logger
}): (message: RepairRequest) => Promise<void> {
  const { engine, conversation, log } = options
  const { vmId } = conversation
  let isBusy = false
  return async ({ body, tail }) => {
    const parsed = request.safeParse(body)
    const leaves = tail ?? Buffer.alloc(0)
    const isWhole = parsed.success && leaves.length === parsed.data.blockIndexes.length * HASH_BYTES
    if (!isWhole || isBusy) {
      log.warn('a request for damaged blocks was not answered', { isBusy })
      return
    }
    isBusy = true
    try {
      const { epoch, requestId, blockIndexes } = parsed.data
      const found = await engine.readProved(vmId, { diskId: parsed.data.diskId, blockIndexes, leaves })
      log.info('damaged blocks of the target answered', {
        diskId: parsed.data.diskId,
        asked: blockIndexes.length,
        found: found.blockIndexes.length,
      })
      const { diskId: disk } = parsed.data
      await conversation.send(
        {
          kind: 'repairBlocks',
          body: {
            vmId,
            epoch,
            diskId: disk,
            blockIndexes: found.blockIndexes,
            storedBytes: found.storedBytes,
            requestId,
          },
          ...(found.payload.length > 0 ? { tail: found.payload } : {}),
        },
        found.release,
      )
    } catch (error) {
      if (!conversation.signal.aborted) log.warn('damaged blocks could not be answered', { error })
    } finally {
      isBusy = false
    }
  }
}
