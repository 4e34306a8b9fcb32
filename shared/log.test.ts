import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'

it('a process whose last act is to close its log ends with every line written', () => {
  const dir = mkdtempSync(join(tmpdir(), 'hotsite-log-'))
  try {
    const program = [
      `import { openLog } from ${JSON.stringify(join(import.meta.dirname, 'log.ts'))}`,
      `const log = openLog('probe', { level: 'info', dir: ${JSON.stringify(dir)} })`,
      `for (let n = 1; n <= 500; n++) log.info('line', { n, error: new Error('x', { cause: new Error('y') }) })`,
      'await log[Symbol.asyncDispose]()',
      `process.stdout.write('closed')`,
    ].join('\n')
    const { status, stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
      encoding: 'utf8',
      cwd: import.meta.dirname,
    })
    expect({ status, stdout }).toEqual({ status: 0, stdout: 'closed' })
    const lines = readFileSync(join(dir, 'probe.1.log'), 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
    expect(lines.map(({ n }) => n)).toEqual(Array.from({ length: 500 }, (_, index) => index + 1))
    expect(lines[0].error.cause.message).toBe('y')
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
})
