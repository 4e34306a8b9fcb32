import type { JobView } from '#coordinator/admin/views.ts'
import { operationWords } from '#coordinator/domain/operation-words.ts'
import { describeMs } from '#coordinator/domain/quantities.ts'
import type { ErrorDocument } from '#shared/errors/hotsite-error.ts'
import { errorLines } from './error-text.ts'
import { type Paint, type Style, visible } from './text/style.ts'
import { clockText, durationText, sizeText, timeText } from './text/units.ts'

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

/** "test failover of shop (job-1)" */
export function jobTitle(job: JobView): string {
  return visible(`${operationWords(job.kind)}${job.vm ? ` of ${job.vm}` : ''} (${job.jobId})`)
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

const toldElsewhere: ReadonlySet<string> = new Set(['waitingFor', 'waitingSinceMs', 'warning', 'sentences'])

/** What was seen, as far as it fits beside the step: plain values only. */
function observedText(step: Step): string {
  const facts = Object.entries(step.observed ?? {})
    .filter(([key]) => !toldElsewhere.has(key))
    .flatMap(([key, value]) => factText(key, value) ?? [])
  const text = facts.slice(0, 3).join(' ')
  return text === '' ? '' : `  ${text.length > 60 ? `${text.slice(0, 59)}…` : text}`
}

/** Names end in their unit, so the unit is known. "size=128 MiB", "captured=14:54:41", "point=2.1", "power=running" */
function factText(key: string, value: unknown): string | undefined {
  if (key === 'secondsLeft' && typeof value === 'number') return `about ${describeMs(value * 1000)} left`
  if (typeof value === 'number') {
    if (key.endsWith('AtMs')) return `${key.slice(0, -'AtMs'.length)}=${clockText(value).slice(-8)}`
    if (key.endsWith('Ms')) return `${key.slice(0, -'Ms'.length)}=${durationText(value)}`
    if (key.endsWith('Bytes')) return `${key.slice(0, -'Bytes'.length)}=${sizeText(value)}`
  }
  if (typeof value === 'object' && value !== null && 'epoch' in value && 'seq' in value)
    return `${key}=${String(value.epoch)}.${String(value.seq)}`
  return ['string', 'number', 'boolean'].includes(typeof value)
    ? `${key}=${visible(String(value))}`
    : undefined
}

/** What a person does next, by the kind of job that succeeded. */
const nextCommands: Readonly<Record<string, (vm: string) => string>> = {
  testFailover: (vm) =>
    `look at the test VM, then hotsite failover cleanup-test ${vm} --outcome passed --notes "…"`,
  plannedFailover: (vm) => `check the VM, then hotsite failover commit ${vm}`,
  unplannedFailover: (vm) =>
    `check the VM, then hotsite failover commit ${vm}, or change-point to choose another point`,
  changePoint: (vm) => `check the VM, then hotsite failover commit ${vm}`,
  exportSeed: (vm) =>
    `bring the folder to the target host, then hotsite vm import-seed ${vm} --folder FOLDER`,
  commit: (vm) => `hotsite failover reverse ${vm}, to protect it the other way`,
}

/** How a job ended, or what it waits for, and what to do then. */
export function outcomeLines(job: JobView, nowMs: number, paint: Paint): string[] {
  const lasted = durationText((job.endedAtMs ?? nowMs) - job.createdAtMs)
  const head = `${paint(jobStyle[job.state], job.state)}  ${jobTitle(job)}  ${paint('dim', `after ${lasted}`)}`
  // What a person asked for is no error.
  if (job.error && job.state === 'cancelled') return [head, paint('dim', visible(job.error.message))]
  if (job.error) return [head, ...errorLines(job.error as ErrorDocument, paint)]
  const found = [...sentencesOf(job), ...warningsOf(job).map((text) => `${paint('warn', '!')} ${text}`)]
  const next = job.state === 'succeeded' && job.vm !== null ? nextCommands[job.kind]?.(job.vm) : undefined
  return [head, ...found, ...(next === undefined ? [] : [`Next: ${visible(next)}`])]
}

/** What a job found out, as sentences of its last step. */
function sentencesOf({ steps }: JobView): string[] {
  const found = steps.at(-1)?.observed?.['sentences']
  return Array.isArray(found) ? found.filter((each) => typeof each === 'string').map(visible) : []
}

function warningsOf({ steps }: JobView): string[] {
  return steps.flatMap(({ observed }) => {
    const text = observed?.['warning']
    return typeof text === 'string' ? [visible(text)] : []
  })
}

/** What keeps a job from going on, if anything does. */
export function waitingText(job: JobView): string | null {
  if (job.state !== 'waiting') return null
  const reason = job.steps.find((step) => step.state === 'running')?.observed?.['waitingFor']
  return `waits: ${typeof reason === 'string' ? visible(reason) : 'see hotsite status'}`
}

export function jobLines(job: JobView, nowMs: number, paint: Paint): string[] {
  return [
    ...outcomeLines(job, nowMs, paint),
    paint('dim', `started ${timeText(job.createdAtMs)}`),
    ...job.steps.map((step) => stepLine(step, { nowMs, paint })),
    ...waitingLines(job, paint),
  ]
}

export function waitingLines(job: JobView, paint: Paint): string[] {
  const text = waitingText(job)
  return text === null ? [] : [`  ${paint('warn', '…')} ${paint('warn', text)}`]
}
