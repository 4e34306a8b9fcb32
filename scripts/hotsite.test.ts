import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, expect, it } from 'vitest'

const launcher = fileURLToPath(new URL('hotsite', import.meta.url))
let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'hotsite-launcher-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

async function run(
  command: string,
  words: readonly string[],
): Promise<{ code: number | null; out: string; err: string }> {
  const child = spawn(command, words, { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] })
  const text = { out: '', err: '' }
  child.stdout.setEncoding('utf8').on('data', (part: string) => {
    text.out += part
  })
  child.stderr.setEncoding('utf8').on('data', (part: string) => {
    text.err += part
  })
  await once(child, 'close')
  return { code: child.exitCode, ...text }
}

it('the launcher works from another folder, through links to links, and prints nothing of its own', async () => {
  symlinkSync(launcher, join(folder, 'first'))
  symlinkSync('first', join(folder, 'hotsite'))
  const { code, out, err } = await run(join(folder, 'hotsite'), ['--version'])
  expect([code, err]).toEqual([0, ''])
  expect(out).toMatch(/^\d+\.\d+\.\d+\n$/)
})

it.each(['coordinator', 'provider', 'agent'])(
  '%s: a configuration that is not there is an error that names it',
  async (daemon) => {
    const { code, err } = await run(launcher, [daemon, '--config', join(folder, 'none.yaml')])
    expect([code, err.includes('none.yaml'), err.includes('[config-missing]')]).toEqual([2, true, true])
  },
)
