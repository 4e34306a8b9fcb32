/**
 * Brings what capture left in the buffer to the target, in order, for ever:
 *
 *   connect → OpenReplica → (synchronize | send the oldest delta | wait)* → any failure: decide, pause, once more
 *
 * Nothing is remembered between attempts: the target says what it has, the engine what is left.
 */
import type { SourceVmState } from '#recovery-agent/capture/port.ts'
import { assertNever, defined } from '#shared/assert.ts'
import { errorDocument } from '#shared/errors/hotsite-error.ts'
import type { PeerAddress } from '#shared/messages/commands.ts'
import { limits } from '../limits.ts'
import { afterFailure, retryPauseMs } from '../stream/source/after-failure.ts'
import type { Conversation } from '../stream/source/conversation.ts'
import type { PeerLink } from '../stream/source/peer-link.ts'
import type { LinkLease, PeerLinks } from '../stream/source/peer-links.ts'
import { repairAnswers } from '../stream/source/repair-answers.ts'
import type { Source } from './source.ts'
import { synchronizeWhenCleared } from './synchronize.ts'
import { transferNext } from './transfer.ts'

export async function sendLoop(source: Source, signal: AbortSignal): Promise<void> {
  using hold = new LinkHold(source.deps.links)
  let failures = 0
  while (!signal.aborted) {
    const seen = source.version
    if (!source.maySend) {
      hold.release()
      await source.change(seen, signal)
      continue
    }
    const stop = source.newAttempt(signal)
    try {
      await sendUntilStopped(source, { link: hold.to(source.record.target), stop }, () => {
        failures = 0
      })
    } catch (error) {
      if (signal.aborted) return
      if (stop.aborted) continue
      await recover(source, error, { failures, stop, signal }).catch((reason) => {
        if (!stop.aborted) throw reason
      })
      failures += 1
    }
  }
}

/** Keeps the link to one target through pauses between attempts, so that trouble of one VM does not cut the others. */
class LinkHold implements Disposable {
  readonly #links: PeerLinks
  #held: { readonly target: PeerAddress; readonly lease: LinkLease } | undefined

  constructor(links: PeerLinks) {
    this.#links = links
  }

  to(target: PeerAddress): PeerLink {
    if (JSON.stringify(this.#held?.target) !== JSON.stringify(target)) {
      const lease = this.#links.acquire(target)
      this.release()
      this.#held = { target, lease }
    }
    return defined(this.#held, 'the link').lease.link
  }

  release(): void {
    this.#held?.lease.release()
    this.#held = undefined
  }

  [Symbol.dispose](): void {
    this.release()
  }
}

async function recover(
  source: Source,
  error: unknown,
  {
    failures,
    stop,
    signal,
  }: { readonly failures: number; readonly stop: AbortSignal; readonly signal: AbortSignal },
): Promise<void> {
  const { engine, clock, rng } = source.deps
  const { code } = errorDocument(error)
  const decision = afterFailure(code, source.record.epoch)
  source.log.warn('sending stopped', { decision: decision.kind, failures, error })
  const pause = () => {
    const range = { firstMs: limits.retryFirstMs, lastMs: limits.retryLastMs }
    return clock.sleep(retryPauseMs(failures, range, rng.next()), stop)
  }
  switch (decision.kind) {
    case 'fence':
      source.fence(decision.epoch)
      await alarmUnlessExpected(source, error, signal)
      return
    case 'resync':
      source.failed(error, 'warning')
      await engine.requireSync(source.vmId, decision.cause)
      source.pendingSync.because(errorDocument(error).message)
      await source.refresh()
      // At once the first time; a pair of hosts that keeps diverging is not helped by haste.
      if (failures > 0) await pause()
      return
    case 'await-ticket':
      // A new ticket interrupts the attempt; without one the clocks may have been set right.
      source.failed(error, 'warning')
      await clock.sleep(limits.retryLastMs, stop)
      return
    case 'reconnect':
      await pause()
      return
    case 'retry':
      // A synchronization became due in the middle of a delta, which is gone with it: no trouble.
      if (code === 'delta-unknown' && (await source.refresh()).needsSync !== null) return
      source.failed(error, 'warning')
      await pause()
      return
    default:
      assertNever(decision)
  }
}

/** Nothing is sent any more; whether that is as planned shows when the coordinator's own fence arrives, or does not. */
async function alarmUnlessExpected(source: Source, error: unknown, signal: AbortSignal): Promise<void> {
  if (source.fenceExpected) return
  const { clock } = source.deps
  const untilMs = clock.monotonicMs() + limits.fenceOrderMs
  source.showError(error)
  while (!source.fenceExpected) {
    const leftMs = untilMs - clock.monotonicMs()
    if (leftMs <= 0) return source.failed(error, 'critical')
    await source.changeOrAfter(source.version, leftMs, signal)
  }
}

async function sendUntilStopped(
  source: Source,
  { link, stop }: { readonly link: PeerLink; readonly stop: AbortSignal },
  onPoint: () => void,
): Promise<void> {
  const { vmId } = source
  try {
    const conversation = await link.converse(vmId, stop)
    const { engine } = source.deps
    conversation.answerRepairs(repairAnswers({ engine, conversation, log: source.log }))
    source.setConnected(true)
    let targetNewest = await open(source, conversation, stop)
    source.setServed(true)
    // A disk that was full at the last attempt may still be: that shows with the next point.
    if (source.error?.code !== 'disk-full') source.succeeded()
    source.catchingUp.begin()
    for (;;) {
      const state = await source.refresh()
      const seen = source.version
      const signal = AbortSignal.any([stop, conversation.signal])
      const work = { source, link, conversation, signal }
      const newest = state.needsSync
        ? await synchronizeWhenCleared(work, targetNewest)
        : await transferNext(work, state)
      if (newest === null) {
        await source.changeOrAfter(seen, source.pendingSync.lookAgainMs, signal)
        continue
      }
      targetNewest = newest
      onPoint()
      source.succeeded()
    }
  } finally {
    link.end(vmId)
    source.setProgress(null)
    source.setServed(false)
    source.setConnected(false)
  }
}

/** Answers the newest point of the target, after the cursor here was brought in line with it. */
async function open(source: Source, conversation: Conversation, stop: AbortSignal): Promise<number> {
  const { engine } = source.deps
  const { vmId, epoch, ticket } = source.record
  const owedTops = (await source.refresh()).owed.map(({ topSeq }) => topSeq)
  const { body } = await conversation.request(
    {
      kind: 'openReplica',
      body: { vmId, epoch, ticket: Buffer.from(ticket, 'base64'), disks: [], owedTops },
    },
    { kinds: ['replicaOpened'], matches: ({ body }) => body.epoch === epoch },
    stop,
  )
  const state = await source.refresh()
  if (state.needsSync) return body.newestSeq
  const cause = reconcile(state, body.newestSeq)
  if (cause === 'acknowledge') {
    await engine.acknowledge(vmId, body.newestSeq)
    source.flow.acknowledged(body.newestSeq)
  } else if (cause) {
    const { ackedSeq, sealedSeq } = state
    await engine.requireSync(vmId, cause)
    source.pendingSync.because(
      `the target holds point ${body.newestSeq}, acknowledged here is ${ackedSeq} of ${sealedSeq}`,
    )
  }
  return body.newestSeq
}

/** What the target's newest point means for the cursor here. Points have their numbers from this epoch's first sync on. */
function reconcile(
  state: SourceVmState,
  newestSeq: number,
): 'acknowledge' | 'target-replaced' | 'buffer-lost' | null {
  if (newestSeq === state.ackedSeq) return null
  if (newestSeq < state.ackedSeq) return 'target-replaced'
  return newestSeq <= state.sealedSeq ? 'acknowledge' : 'buffer-lost'
}
