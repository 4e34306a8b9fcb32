import type { JobView } from '#coordinator/admin/views.ts'
import type { ErrorDocument } from '#shared/errors/hotsite-error.ts'
import { errorLines } from './error-text.ts'
import { type Paint, type Style, visible } from './text/style.ts'
import { durationText, timeText } from './text/units.ts'

type Step = JobView['steps'][number]

export const jobStyle: Readonly<Record<JobView['state'], Style>> = {
  running: 'plain',
  waiting: 'warn',
  succeeded: 'good',
  failed: 'bad',
  cancelled: 'warn',
}

const marks: Readonly<Record<Step['state'], readonly [string, Style]>> = {
  pending: ['·', 'dim'],
  running: ['▸', 'bold'],
  succeeded: ['✓', 'good'],
  failed: ['✗', 'bad'],
  skipped: ['–', 'dim'],
}

export function isEnded(job: JobView): boolean {
  return job.state === 'succeeded' || job.state === 'failed' || job.state === 'cancelled'
}

/** "testFailover of shop (job-1)" */
export function jobTitle(job: JobView): string {
  return visible(`${job.kind}${job.vm ? ` of ${job.vm}` : ''} (${job.jobId})`)
}

/** "  ✓ Start the VM  4.2 s  power=running" */
export function stepLine(
  step: Step,
  { nowMs, paint, mark }: { nowMs: number; paint: Paint; mark?: string },
): string {
  const [sign, style] = marks[step.state]
  const title = paint(
    step.state === 'pending' || step.state === 'skipped' ? 'dim' : 'plain',
    visible(step.title),
  )
  const duration =
    step.startedAtMs === null ? '' : `  ${durationText((step.endedAtMs ?? nowMs) - step.startedAtMs)}`
  return `  ${paint(style, mark ?? sign)} ${title}${paint('dim', duration + observedText(step))}`
}

/** What was seen, as far as it fits beside the step: plain values only. */
function observedText(step: Step): string {
  const facts = Object.entries(step.observed ?? {})
    .filter(([, value]) => ['string', 'number', 'boolean'].includes(typeof value))
    .map(([key, value]) => `${key}=${visible(String(value))}`)
  const text = facts.slice(0, 3).join(' ')
  return text === '' ? '' : `  ${text.length > 60 ? `${text.slice(0, 59)}…` : text}`
}

/** How a job ended, or that it waits for a person, and what to do then. */
export function outcomeLines(job: JobView, nowMs: number, paint: Paint): string[] {
  const lasted = durationText((job.endedAtMs ?? nowMs) - job.createdAtMs)
  const head = `${paint(jobStyle[job.state], job.state)}  ${jobTitle(job)}  ${paint('dim', `after ${lasted}`)}`
  if (job.error) return [head, ...errorLines(job.error as ErrorDocument, paint)]
  if (job.state !== 'waiting') return [head]
  const answer =
    job.kind === 'testFailover' || job.kind === 'test-failover'
      ? `Look at the test VM; then: hotsite failover cleanup-test ${job.vm} --outcome passed --notes "…"`
      : `It waits for you: hotsite job show ${job.jobId}`
  return [head, visible(answer)]
}

export function jobLines(job: JobView, nowMs: number, paint: Paint): string[] {
  return [
    ...outcomeLines(job, nowMs, paint),
    paint('dim', `started ${timeText(job.createdAtMs)}`),
    ...job.steps.map((step) => stepLine(step, { nowMs, paint })),
  ]
}
