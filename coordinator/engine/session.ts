/** One agent's connection: reports and results in, commands out. Ends when the channel does. */
import type { Channel } from '#shared/channel/port.ts'
import { errorDocument } from '#shared/errors/hotsite-error.ts'
import { dueCommands, endCommand, type OutboxRow } from '../store/outbox.ts'
import { noteSeen } from '../store/servers.ts'
import { commandBody } from './command-body.ts'
import type { Engine } from './engine.ts'
import { receiveReport, receiveResult } from './inbox.ts'
import { createTrustDelivery } from './trust-delivery.ts'

export async function runSession(engine: Engine, channel: Channel, stop: AbortSignal): Promise<void> {
  const { vaultId, serverId, name } = channel.peer
  const log = engine.log.with({ serverId, name })
  const ended = new AbortController()
  const signal = AbortSignal.any([ended.signal, stop])
  engine.connections.add(channel)
  engine.bus.notify()
  log.info('agent connected', { kind: channel.peer.kind })
  const trust = createTrustDelivery(engine, channel)
  const loops = Promise.all([
    guarded(channel, () => deliverCommands(engine, channel, signal)),
    guarded(channel, () => keepCounters(engine, channel, signal)),
    guarded(channel, () => trust.run(signal)),
  ])
  try {
    for await (const message of channel.messages()) {
      // A newer channel of this server took over: what this one still holds may be older than what was heard there.
      if (engine.connections.get(vaultId, serverId) !== channel) break
      if (message.kind === 'report') await receiveReport(engine, channel, message.body)
      else if (message.kind === 'commandResult') {
        if (!trust.take(message.body)) await receiveResult(engine, channel, message.body)
      } else log.warn('unexpected message from an agent', { kind: message.kind })
    }
  } catch (error) {
    // What was not acknowledged is reported again on the next channel.
    log.error('agent session broke', { error })
    channel.close({ code: 'internal', message: 'the coordinator could not process a message' })
  } finally {
    engine.connections.remove(channel)
    ended.abort()
    await loops
    const { code, message } = await channel.closed
    log.info('agent disconnected', { code, reason: message })
    engine.bus.notify()
  }
}

/** A loop that breaks ends its channel; the agent connects again and everything is taken up from the database. */
async function guarded(channel: Channel, loop: () => Promise<void>): Promise<void> {
  try {
    await loop()
  } catch {
    channel.close({ code: 'internal', message: 'the coordinator could not serve this channel' })
  }
}

/** Everything open is sent once per connection; after a reconnect it is sent again (I4). */
async function deliverCommands(engine: Engine, channel: Channel, signal: AbortSignal): Promise<void> {
  const { vaultId, serverId } = channel.peer
  const sent = new Set<string>()
  while (!signal.aborted) {
    const seen = engine.bus.version
    const due = await dueCommands(engine.db, vaultId, serverId)
    for (const row of due.slice(0, engine.limits.maxCommandsInFlight)) {
      const { commandId, kind } = row
      if (sent.has(commandId)) continue
      sent.add(commandId)
      engine.crashPoint('command-before-send')
      const json = await commandBody(engine, row).catch((error: unknown) => giveUp(engine, row, error))
      if (!json) continue
      await channel.send({ kind: 'command', body: { commandId, kind, json } })
      engine.log.debug('command sent', { commandId, kind, serverId })
    }
    for (const commandId of sent) if (!due.some((row) => row.commandId === commandId)) sent.delete(commandId)
    await engine.bus.changedSince(seen, { timeoutMs: engine.limits.jobPollMs, signal })
  }
}

/** A command that cannot be made complete: whoever asked for it is told why. */
async function giveUp(engine: Engine, row: OutboxRow, error: unknown): Promise<undefined> {
  engine.log.error('command not sent', { commandId: row.commandId, kind: row.kind, error })
  const document = JSON.stringify(errorDocument(error))
  await endCommand(engine.db, row, { state: 'failed', error: document, nowMs: engine.clock.now() })
  engine.bus.notify()
}

/** How much came in and went out, for the proof that no disk byte passes here (I1). */
async function keepCounters(engine: Engine, channel: Channel, signal: AbortSignal): Promise<void> {
  let received = 0
  let sent = 0
  const flush = async () => {
    const { bytesReceived, bytesSent } = channel.counters
    await noteSeen(engine.db, channel.peer, {
      atMs: engine.clock.now(),
      addReceived: bytesReceived - received,
      addSent: bytesSent - sent,
    })
    received = bytesReceived
    sent = bytesSent
  }
  while (!signal.aborted) {
    await flush()
    await engine.clock.sleep(engine.limits.countersFlushMs, signal).catch(() => {})
  }
  await flush()
}
