import type { Bodies } from '../channel/message.ts'
import type { Channel } from '../channel/port.ts'
import type { Logger } from '../log.ts'
import type { CommandRunner } from './command-runner.ts'
import type { ReportOutbox } from './report-outbox.ts'

export interface ServeCoordinatorOptions {
  readonly channel: Channel
  readonly runner: CommandRunner
  readonly reports: ReportOutbox
  readonly log: Logger
}

/** One connection to the coordinator, until it ends: commands in, results and reports out. */
export async function serveCoordinator({
  channel,
  runner,
  reports,
  log,
}: ServeCoordinatorOptions): Promise<void> {
  const ended = new AbortController()
  const reporting = sendReports(channel, reports, ended.signal)
  try {
    for await (const message of channel.messages()) {
      if (message.kind === 'command') answer(channel, runner, message.body)
      else if (message.kind === 'reportAck') reports.acknowledge(message.body.reportSeq)
      else log.warn('unexpected message from the coordinator', { kind: message.kind })
    }
  } finally {
    ended.abort(new Error('the connection ended'))
    await reporting
  }
}

/**
 * Does not wait: a command may take hours. It is not tied to the connection either; a result that finds this channel
 * closed is remembered, and the coordinator repeats the command on the next one.
 */
function answer(channel: Channel, runner: CommandRunner, command: Bodies['command']): void {
  runner
    .run(command)
    .then(({ ok, json }) =>
      channel.send({ kind: 'commandResult', body: { commandId: command.commandId, ok, json } }),
    )
    .catch(() => {})
}

async function sendReports(channel: Channel, reports: ReportOutbox, ended: AbortSignal): Promise<void> {
  reports.restart()
  try {
    for (;;) {
      for (let report = reports.take(); report; report = reports.take()) {
        await channel.send({ kind: 'report', body: report })
      }
      await reports.changed(ended)
    }
  } catch (error) {
    // The channel said why it ended to whoever reads it; reports wait for the next one.
    if (!ended.aborted) channel.close({ code: 'channel-closed', message: String(error) })
  }
}
