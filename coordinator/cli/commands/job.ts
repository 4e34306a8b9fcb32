import { writeFileSync } from 'node:fs'
import type { Command } from 'commander'
import type { JobView } from '#coordinator/admin/views.ts'
import { operationWords } from '#coordinator/domain/operation-words.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { type Context, clientFor, show, table } from '../context.ts'
import { jobLines, jobStyle } from '../job-text.ts'
import { addNoWaitOption, followJob } from '../job-wait.ts'
import { durationText } from '../text/units.ts'
import { withExample } from './example.ts'
import { wholeNumber } from './policy-options.ts'

const maxListed = 1000

export function addLimitOption(command: Command): Command {
  return command.option('--limit <n>', 'how many at most', wholeNumber(1, maxListed), 50)
}

export function addJobCommands(program: Command, context: Context): void {
  const group = program.command('job').description('what was asked for and how far it is')

  withExample(
    addLimitOption(group.command('list'))
      .description('jobs, newest first')
      .action(async (options: { limit: number }, command: Command) => {
        const jobs = await clientFor(context, command).call('listJobs', { query: { limit: options.limit } })
        show(context, command, jobs, (all) => listLines(context, all))
      }),
    'hotsite job list --limit 10',
  )
  withExample(
    group
      .command('show <job>')
      .description('one job with its steps')
      .action(async (job: string, _options: unknown, command: Command) => {
        const view = await clientFor(context, command).call('showJob', { params: { job } })
        show(context, command, view, (shown) => jobLines(shown, context.clock.now(), context.paint))
      }),
    'hotsite job show JOB',
  )
  withExample(
    group
      .command('picture <job>')
      .description('save what the console showed when the VM of a test failover had come up, as PNG')
      .requiredOption('--out <file>', 'where to write it; a file that is there is kept')
      .action(async (job: string, options: { out: string }, command: Command) => {
        const picture = await clientFor(context, command).call('showJobPicture', { params: { job } })
        writeNew(options.out, Buffer.from(picture.pngBase64, 'base64'))
        const { takenAtMs } = picture
        show(context, command, { job: picture.job, takenAtMs, file: options.out }, ({ file }) => [
          `Written to ${file}.`,
        ])
      }),
    'hotsite job picture JOB --out test.png',
  )
  withExample(
    group
      .command('watch <job>')
      .description('follow a job until it has ended; the exit code tells how')
      .action(async (job: string, _options: unknown, command: Command) => {
        const client = clientFor(context, command)
        const started = await client.call('showJob', { params: { job } })
        await followJob(context, command, client, { started, wait: true })
      }),
    'hotsite job watch JOB',
  )
  withExample(
    addNoWaitOption(group.command('cancel <job>'))
      .description('cancel a job and wait until what it did is undone')
      .action(async (job: string, options: { wait: boolean }, command: Command) => {
        const client = clientFor(context, command)
        const started = await client.call('cancelJob', { params: { job } })
        await followJob(context, command, client, { started, wait: options.wait, wanted: 'cancelled' })
      }),
    'hotsite job cancel JOB',
  )
}

/** Never over a file that is there. */
function writeNew(path: string, bytes: Uint8Array): void {
  try {
    writeFileSync(path, bytes, { flag: 'wx' })
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error
    throw new HotsiteError('file-exists', `${path} is there already`)
  }
}

function listLines(context: Context, jobs: readonly JobView[]): string[] {
  if (jobs.length === 0) return ['No job has run yet.']
  const columns = [
    { title: 'JOB' },
    { title: 'KIND' },
    { title: 'VM', shrinks: true },
    { title: 'STATE' },
    { title: 'STARTED', align: 'right' as const },
    { title: 'LASTED', align: 'right' as const },
    { title: 'STEP', shrinks: true },
  ]
  const nowMs = context.clock.now()
  return table(
    context,
    columns,
    jobs.map((job) => [
      job.jobId,
      operationWords(job.kind),
      job.vm ?? '–',
      { text: job.state, style: jobStyle[job.state] },
      `${durationText(nowMs - job.createdAtMs)} ago`,
      durationText((job.endedAtMs ?? nowMs) - job.createdAtMs),
      currentStep(job),
    ]),
  )
}

function currentStep(job: JobView): string {
  const done = job.steps.filter((step) => step.state === 'succeeded' || step.state === 'skipped').length
  const at = job.steps.find((step) => step.state === 'running' || step.state === 'failed')
  return `${done}/${job.steps.length}${at ? ` ${at.title}` : ''}`
}
