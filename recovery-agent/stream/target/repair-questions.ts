/** Requests for damaged blocks that wait for the source's answer. */
import type { RepairWanted } from '#recovery-agent/replica/port.ts'
import type { Bodies, Message } from '#shared/channel/message.ts'
import type { Clock } from '#shared/clock.ts'
import type { VmId } from '#shared/ids.ts'
import { limits } from '../../limits.ts'

export interface RepairAnswer {
  readonly body: Bodies['repairBlocks']
  readonly tail: Buffer
}

export class RepairQuestions {
  readonly #clock: Clock
  readonly #send: (message: Message) => void
  readonly #waiting = new Map<number, (answer: RepairAnswer) => void>()
  #lastRequestId = 0

  constructor(clock: Clock, send: (message: Message) => void) {
    this.#clock = clock
    this.#send = send
  }

  /** undefined: no answer in time, or the channel ended. */
  async ask(
    { vmId, epoch, wanted }: { readonly vmId: VmId; readonly epoch: number; readonly wanted: RepairWanted },
    ended: AbortSignal,
  ): Promise<RepairAnswer | undefined> {
    const { diskId, blockIndexes, leaves } = wanted
    const requestId = ++this.#lastRequestId
    const answered = Promise.withResolvers<RepairAnswer>()
    const done = new AbortController()
    const stop = AbortSignal.any([ended, done.signal])
    this.#waiting.set(requestId, answered.resolve)
    try {
      const body = { vmId, epoch, diskId, blockIndexes, requestId }
      this.#send({ kind: 'repairRequest', body, tail: Buffer.from(leaves) })
      const inVain = this.#clock.sleep(limits.repairAnswerMs, stop).then(
        () => undefined,
        () => undefined,
      )
      return await Promise.race([answered.promise, inVain])
    } finally {
      this.#waiting.delete(requestId)
      done.abort(new Error('answered'))
    }
  }

  answered(body: Bodies['repairBlocks'], tail: Buffer | undefined): void {
    // The tail shares memory with the frame it came in.
    this.#waiting.get(body.requestId)?.({ body, tail: Buffer.from(tail ?? Buffer.alloc(0)) })
  }
}
