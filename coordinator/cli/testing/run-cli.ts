import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'

export interface CliRun {
  readonly exitCode: number | null
  readonly out: string
  readonly err: string
}

const script = fileURLToPath(new URL('../../../scripts/hotsite.ts', import.meta.url))

/** The real command as a child process, its streams not a terminal. */
export function runHotsite(
  words: readonly string[],
  { socketPath, env = {}, cwd }: { socketPath?: string; env?: Record<string, string>; cwd?: string } = {},
): Promise<CliRun> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [script, ...words], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...(socketPath ? { HOTSITE_SOCKET: socketPath } : {}), ...env },
      ...(cwd ? { cwd } : {}),
    })
    let out = ''
    let err = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      out += text
    })
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      err += text
    })
    child.on('error', reject)
    child.on('close', (exitCode) => resolve({ exitCode, out, err }))
  })
}
