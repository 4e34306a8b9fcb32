import { PassThrough } from 'node:stream'
import { expect, it } from 'vitest'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { RunDaemon } from '../context.ts'
import { runCli } from '../main.ts'

function run(daemon: RunDaemon): Promise<number> {
  const idle = async () => {}
  return runCli({
    arguments: ['provider', '--config', 'p.yaml'],
    terminal: { in: new PassThrough(), out: new PassThrough(), err: new PassThrough(), env: {} },
    daemons: { coordinator: idle, provider: daemon, agent: idle },
    version: '1',
  })
}

it.each(['SIGTERM', 'SIGINT'] as const)(
  "%s asks a daemon to stop; then the next one is the system's",
  async (signal) => {
    const before = process.listenerCount(signal)
    const exitCode = await run(async (configPath, stopping) => {
      expect(configPath).toBe('p.yaml')
      expect(process.listenerCount(signal)).toBe(before + 1)
      // To this process alone, as the kernel would deliver it.
      process.kill(process.pid, signal)
      await new Promise((resolve) => stopping.addEventListener('abort', resolve))
      expect(process.listenerCount(signal)).toBe(before)
      stopping.throwIfAborted()
    })
    expect(exitCode).toBe(0)
    expect(process.listenerCount(signal)).toBe(before)
  },
)

it('a daemon that cannot start ends with the exit code of its error', async () => {
  const refused = async () => {
    throw new HotsiteError('data-dir-in-use', 'another one runs')
  }
  expect(await run(refused)).toBe(4)
})
