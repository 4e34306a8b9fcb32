import { PassThrough } from 'node:stream'
import { expect, it } from 'vitest'
import { sampleJob } from '#coordinator/admin/testing/sample-views.ts'
import type { JobView } from '#coordinator/admin/views.ts'
import { systemClock } from '#shared/clock.ts'
import { openJobDisplay } from './job-display.ts'
import type { Terminal } from './terminal.ts'

const step = { name: 's', title: 'Start the VM', startedAtMs: 1_000, endedAtMs: null, observed: null }
const running: JobView = sampleJob({ steps: [{ ...step, state: 'running' }] })
const done: JobView = sampleJob({
  state: 'succeeded',
  createdAtMs: 0,
  endedAtMs: 9_000,
  steps: [{ ...step, state: 'succeeded', endedAtMs: 5_200, observed: { power: 'running' } }],
})
const erased = '\u001b[2A\u001b[0J'

function terminal(columns?: number): { terminal: Terminal; text: () => string } {
  const isTTY = columns !== undefined
  const out = Object.assign(new PassThrough(), { isTTY, ...(isTTY ? { columns } : {}) })
  return {
    terminal: { in: new PassThrough(), out, err: out, env: {} },
    text: () => String(out.read() ?? ''),
  }
}

it('on a terminal a step turns green where it stood, and the cursor comes back', () => {
  const { terminal: tty, text } = terminal(80)
  {
    using display = openJobDisplay(tty, systemClock, false)
    display.update(running)
    const before = text()
    expect(before.startsWith('\u001b[?25l')).toBe(true)
    expect(before).not.toContain('✓')
    display.finish(done)
  }
  const after = text()
  expect(after.startsWith(erased)).toBe(true)
  expect(after).toContain('\u001b[32m✓\u001b[0m Start the VM\u001b[2m  4.2 s  power=running')
  expect(after.endsWith('\u001b[?25h')).toBe(true)
})

it('on a narrow terminal no line wraps, so that the way back is counted right', () => {
  const { terminal: tty, text } = terminal(12)
  using display = openJobDisplay({ ...tty, env: { NO_COLOR: '1' } }, systemClock, false)
  display.update(running)
  for (const line of text().replace('\u001b[?25l', '').split('\n'))
    expect([...line].length).toBeLessThanOrEqual(12)
})

it('elsewhere each finished step is one line, once', () => {
  const { terminal: pipe, text } = terminal()
  using display = openJobDisplay(pipe, systemClock, false)
  for (const job of [running, running, done, done]) display.update(job)
  display.finish(done)
  expect(
    text()
      .split('\n')
      .filter((line) => line.includes('Start the VM')),
  ).toEqual(['  ✓ Start the VM  4.2 s  power=running'])
})

it('with --json it is silent', () => {
  const { terminal: tty, text } = terminal(80)
  using display = openJobDisplay(tty, systemClock, true)
  display.update(running)
  display.finish(done)
  expect(text()).toBe('')
})

it('what a job waits for is said once, and again when it is something else', () => {
  const { terminal: pipe, text } = terminal()
  using display = openJobDisplay(pipe, systemClock, false)
  const waiting = (waitingFor: string): JobView =>
    sampleJob({ state: 'waiting', steps: [{ ...step, state: 'running', observed: { waitingFor } }] })
  for (const reason of ['host-a is away', 'host-a is away', 'host-b is away']) display.update(waiting(reason))
  expect(text().split('\n').slice(1, -1)).toEqual(['  … waits: host-a is away', '  … waits: host-b is away'])
})

it('a copy that lasts says how far it is and how long it takes', () => {
  const { terminal: tty, text } = terminal(120)
  const observed = { doneBytes: 12 * 2 ** 30, totalBytes: 20 * 2 ** 30, secondsLeft: 250 }
  using display = openJobDisplay({ ...tty, env: { NO_COLOR: '1' } }, systemClock, false)
  display.update(sampleJob({ steps: [{ ...step, state: 'running', observed }] }))
  expect(text()).toContain('done=12 GiB total=20 GiB about 4 min left')
})

it('what a job found out is told in full when it ends, below its steps', () => {
  const { terminal: pipe, text } = terminal()
  using display = openJobDisplay(pipe, systemClock, false)
  const warning = `suspect: ${'much was written '.repeat(6)}; before it: hotsite failover test shop --point 1.6`
  const steps = [{ ...step, state: 'succeeded' as const, endedAtMs: 5_200, observed: { warning } }]
  display.finish({ ...done, steps })
  expect(text()).toContain(`\n! ${warning}\n`)
})
