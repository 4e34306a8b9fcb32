import type { JobView } from '#coordinator/admin/views.ts'
import type { Clock } from '#shared/clock.ts'
import { jobTitle, outcomeLines, stepLine, waitingLines } from './job-text.ts'
import { paintFor, type Terminal } from './terminal.ts'

export interface JobDisplay extends Disposable {
  update(job: JobView): void
  finish(job: JobView): void
}

/** A picture that moves on a terminal, a line per finished step elsewhere, nothing with --json. */
export function openJobDisplay(terminal: Terminal, clock: Clock, json: boolean): JobDisplay {
  if (json) return { update: () => {}, finish: () => {}, [Symbol.dispose]: () => {} }
  return terminal.out.isTTY ? liveDisplay(terminal, clock) : lineDisplay(terminal, clock)
}

function lineDisplay(terminal: Terminal, clock: Clock): JobDisplay {
  const paint = paintFor(terminal)
  const printed = new Set<string>()
  let waited = ''
  const print = (line: string) => terminal.out.write(`${line}\n`)
  const update = (job: JobView) => {
    if (printed.size === 0) print(jobTitle(job))
    printed.add('title')
    for (const [index, step] of job.steps.entries()) {
      const key = `step ${index}`
      const over = step.state === 'succeeded' || step.state === 'failed' || step.state === 'skipped'
      if (!over || printed.has(key)) continue
      printed.add(key)
      print(stepLine(step, { nowMs: clock.now(), paint }))
    }
    const waits = waitingLines(job, paint).join('')
    if (waits !== '' && waits !== waited) print(waits)
    waited = waits
  }
  return {
    update,
    finish(job) {
      update(job)
      for (const line of outcomeLines(job, clock.now(), paint)) print(line)
    },
    [Symbol.dispose]: () => {},
  }
}

const frames = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'] as const
const frameMs = 100
const hideCursor = '\u001b[?25l'
const showCursor = '\u001b[?25h'

function liveDisplay(terminal: Terminal, clock: Clock): JobDisplay {
  const paint = paintFor(terminal)
  const { out } = terminal
  let job: JobView | null = null
  let drawn = 0
  let frame = 0

  const draw = (ending: readonly string[] = []) => {
    if (!job) return
    const nowMs = clock.now()
    const mark = frames[frame % frames.length] ?? ''
    const steps = job.steps.map((step) =>
      stepLine(step, { nowMs, paint, ...(step.state === 'running' ? { mark } : {}) }),
    )
    // A line that wraps would spoil the count of lines to go back.
    const lines = [
      ...(ending.length === 0 ? [paint('bold', jobTitle(job))] : []),
      ...steps,
      ...waitingLines(job, paint),
    ].map((line) => cutToWidth(line, out.columns || 80))
    const back = drawn > 0 ? `\u001b[${drawn}A\u001b[0J` : hideCursor
    out.write(`${back}${[...lines, ...ending].join('\n')}\n`)
    drawn = lines.length
  }
  const timer = setInterval(() => {
    frame += 1
    draw()
  }, frameMs)

  return {
    update(changed) {
      job = changed
      draw()
    },
    finish(changed) {
      job = changed
      clearInterval(timer)
      draw(outcomeLines(changed, clock.now(), paint))
    },
    [Symbol.dispose]: () => {
      clearInterval(timer)
      if (drawn > 0) out.write(showCursor)
    },
  }
}

/** Counts what is seen: colour sequences take no room. */
export function cutToWidth(line: string, width: number): string {
  let seen = 0
  let result = ''
  // biome-ignore lint/suspicious/noControlCharactersInRegex: colour sequences begin with one
  for (const [part] of line.matchAll(/\u001b\[\d+m|./gsu)) {
    if (part.length > 1 && part.startsWith('\u001b')) {
      result += part
      continue
    }
    seen += 1
    if (seen < width) result += part
    else if (seen === width) result += '…'
  }
  return result
}
