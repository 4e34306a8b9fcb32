/**
 * Tells one server, on one connection, which servers of its vault were removed: at the start unless there are none, and
 * whenever the list changes. It is state, not work: nothing of it is stored here, and the next connection tells it again.
 */
import type { Bodies } from '#shared/channel/message.ts'
import type { Channel } from '#shared/channel/port.ts'
import { errorFromDocument, HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { CommandRequest } from '#shared/messages/commands.ts'
import type { Engine } from './engine.ts'
import { randomId } from './random-id.ts'

export interface TrustDelivery {
  run(signal: AbortSignal): Promise<void>
  /** False: it is the result of another command. */
  take(result: Bodies['commandResult']): boolean
}

function failureOf(json: Uint8Array): HotsiteError {
  try {
    return errorFromDocument(JSON.parse(Buffer.from(json).toString('utf8')))
  } catch (cause) {
    return new HotsiteError('agent-answer-invalid', 'the server answered with no error document', { cause })
  }
}

export function createTrustDelivery(engine: Engine, channel: Channel): TrustDelivery {
  const { bus, clock, limits, rng } = engine
  const { vaultId, serverId, name } = channel.peer
  const prefix = `${randomId('trust', rng)}:`
  let sentCount = 0
  let told: CommandRequest<'trust.update'> | undefined
  let failedMonotonicMs: number | undefined

  async function send(update: CommandRequest<'trust.update'>): Promise<void> {
    told = update
    failedMonotonicMs = undefined
    sentCount += 1
    // A new id each time: by the same one the server would answer from memory instead of taking the list.
    const body = { commandId: `${prefix}${sentCount}`, kind: 'trust.update' }
    const json = Buffer.from(JSON.stringify(update))
    await channel.send({ kind: 'command', body: { ...body, json } })
    engine.log.info('removed servers told', { serverId, name, removed: update.revokedServerIds.length })
  }

  return {
    async run(signal) {
      while (!signal.aborted) {
        const seen = bus.version
        const update = engine.trustUpdate(vaultId)
        const isNews = update !== told && (told !== undefined || update?.revokedServerIds.length !== 0)
        const isDueAgain =
          failedMonotonicMs !== undefined && clock.monotonicMs() - failedMonotonicMs >= limits.fenceRetryMs
        if (update && (isNews || isDueAgain)) await send(update)
        await bus.changedSince(seen, { timeoutMs: limits.jobPollMs, signal })
      }
    },
    take({ commandId, ok, json }) {
      if (!commandId.startsWith(prefix)) return false
      if (ok) return true
      const error = failureOf(json)
      engine.log.error('a server did not take the list of removed servers', { serverId, name, error })
      // Of a version that does not know the command, or of another generation: asking again changes nothing.
      if (error.retryable) failedMonotonicMs = clock.monotonicMs()
      return true
    },
  }
}
