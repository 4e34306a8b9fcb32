import type { Command } from 'commander'
import type { JobView } from '#coordinator/admin/views.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { Client } from './client.ts'
import { type Context, globalsOf, show } from './context.ts'
import { exitCodes } from './exit-codes.ts'
import { openJobDisplay } from './job-display.ts'
import { isEnded, jobLines } from './job-text.ts'

/** A coordinator that is restarted meanwhile goes on with the job: the watcher waits this long for it. */
const reconnectAttempts = 30
const reconnectMs = 1_000

export function addNoWaitOption(command: Command): Command {
  return command.option('--no-wait', 'print the job and do not wait for it')
}

/** Shows a job that was just started until it has ended; the exit code tells whether it ended as `wanted`. */
export async function followJob(
  context: Context,
  command: Command,
  client: Client,
  options: { started: JobView; wait: boolean; wanted?: 'succeeded' | 'cancelled' },
): Promise<void> {
  const { started, wait, wanted = 'succeeded' } = options
  const print = (job: JobView) =>
    show(context, command, job, (shown) => jobLines(shown, context.clock.now(), context.paint))
  if (!wait) return print(started)
  const json = globalsOf(command).json === true
  const last = await watchToTheEnd(context, client, started.jobId, json)
  if (json) print(last)
  if (last.state !== wanted) context.exitCode = exitCodes.jobFailed
}

async function watchToTheEnd(
  context: Context,
  client: Client,
  jobId: string,
  json: boolean,
): Promise<JobView> {
  const { terminal, clock } = context
  const interrupt = new AbortController()
  const onSignal = () => interrupt.abort(new InterruptedError(jobId))
  process.once('SIGINT', onSignal)
  using display = openJobDisplay(terminal, clock, json)
  try {
    for (let attempt = 0; ; attempt += 1) {
      try {
        for await (const job of client.watchJob(jobId, interrupt.signal)) {
          attempt = 0
          if (isEnded(job)) {
            display.finish(job)
            return job
          }
          display.update(job)
        }
      } catch (error) {
        interrupt.signal.throwIfAborted()
        if (!isOutage(error) || attempt >= reconnectAttempts) throw error
      }
      interrupt.signal.throwIfAborted()
      if (attempt >= reconnectAttempts)
        throw new HotsiteError(
          'admin-socket-unreachable',
          `the coordinator went away; job ${jobId} goes on with it`,
        )
      await clock.sleep(reconnectMs, interrupt.signal)
    }
  } catch (error) {
    if (!(interrupt.signal.reason instanceof InterruptedError)) throw error
    throw interrupt.signal.reason
  } finally {
    process.off('SIGINT', onSignal)
  }
}

/** Ctrl-C ends the waiting, not the job. */
export class InterruptedError extends Error {
  readonly jobId: string
  constructor(jobId: string) {
    super(`The job goes on: hotsite job watch ${jobId}`)
    this.jobId = jobId
  }
}

function isOutage(error: unknown): boolean {
  if (error instanceof HotsiteError) return error.code === 'admin-socket-unreachable'
  return error instanceof Error && 'code' in error && error.code === 'ECONNRESET'
}
