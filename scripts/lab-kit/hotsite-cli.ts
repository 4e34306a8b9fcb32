import { spawn } from 'node:child_process'
import { hotsiteEntry } from './processes.ts'

export class CliFailure extends Error {
  override readonly name = 'CliFailure'
  readonly exitCode: number

  constructor(args: readonly string[], exitCode: number, stderr: string) {
    super(`hotsite ${args.join(' ')} ended with exit code ${exitCode}: ${stderr.trim()}`)
    this.exitCode = exitCode
  }
}

export type HotsiteCli = (...args: readonly string[]) => Promise<unknown>

/** The real command line with --json, as a user's script would call it; answers the parsed document. */
export function hotsiteCli(socket: string): HotsiteCli {
  return (...args) =>
    new Promise((resolve, reject) => {
      const child = spawn(process.execPath, [hotsiteEntry, ...args, '--json'], {
        stdio: ['ignore', 'pipe', 'pipe'],
        env: { ...process.env, HOTSITE_SOCKET: socket },
      })
      let out = ''
      let err = ''
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        out += text
      })
      child.stderr.setEncoding('utf8').on('data', (text: string) => {
        err += text
      })
      child.once('error', reject)
      child.once('close', (code) => {
        if (code !== 0) reject(new CliFailure(args, code ?? 1, err || out))
        else resolve(out.trim() === '' ? undefined : JSON.parse(out))
      })
    })
}
