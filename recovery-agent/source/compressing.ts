import type { ServerId } from '#shared/ids.ts'
import { CompressionChoice, isLinkScarce } from '../stream/source/compression-choice.ts'
import type { Source } from './source.ts'

/** Whether blocks of one VM are compressed. */
export class Compressing {
  readonly #source: Source
  #chosen: { readonly target: ServerId; readonly choice: CompressionChoice } | undefined

  constructor(source: Source) {
    this.#source = source
  }

  /** Learned from the synchronizations of this life, of all VMs that go to the same target. */
  get choice(): CompressionChoice {
    const { record, deps } = this.#source
    const { serverId: target } = record.target
    if (this.#chosen?.target !== target)
      this.#chosen = { target, choice: new CompressionChoice(deps.links.ratesTo(target)) }
    return this.#chosen.choice
  }

  /** In the next copy cycle. What may have to wait in the buffer takes less room compressed. */
  get inNextCycle(): boolean {
    const { record, peerConnected } = this.#source
    return record.policy.compression && (!peerConnected || this.linkIsScarce || this.choice.worthwhile)
  }

  /** By the throttle of the moment, or as it was last measured. */
  get linkIsScarce(): boolean {
    const { flow, throttle } = this.#source
    const { linkBytesPerSecond } = flow
    return isLinkScarce({ throttleBytesPerSecond: throttle.bytesPerSecond, linkBytesPerSecond })
  }
}
