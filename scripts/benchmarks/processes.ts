/** Programs of others: whether they are there, servers until told to end, clients with their CPU seconds. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { waitUntil } from '../lab-kit/processes.ts'
import { isListening, parseBashTime } from './parse.ts'

const readyTimeoutMs = 10_000

export const has = (command: string): boolean =>
  spawnSync('sh', ['-c', 'command -v "$1"', 'sh', command], { stdio: 'ignore' }).status === 0

export interface Server extends AsyncDisposable {
  readonly pid: number
}

/** Until it listens on the port, or the Unix socket is there. Disposing it ends it and waits for that. */
export async function startServer(argv: readonly string[], ready: number | string): Promise<Server> {
  const child = spawn(argv[0] ?? '', argv.slice(1), { stdio: ['ignore', 'ignore', 'inherit'] })
  const failed = new Promise<never>((_, reject) => child.once('error', reject))
  const isReady = () => (typeof ready === 'number' ? listens(ready) : existsSync(ready))
  const inTime = await Promise.race([waitUntil(isReady, readyTimeoutMs, 10), failed])
  if (!inTime || child.pid === undefined) {
    child.kill('SIGKILL')
    throw new Error(`${argv[0]} is not ready at ${ready}`)
  }
  return { pid: child.pid, [Symbol.asyncDispose]: () => stop(child) }
}

/** Looked up, not tried: some servers complain of a connection that says nothing. */
const listens = (port: number) => isListening(readFileSync('/proc/net/tcp', 'utf8'), port)

export async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  child.kill('SIGTERM')
  const forced = setTimeout(() => child.kill('SIGKILL'), readyTimeoutMs)
  await exited
  clearTimeout(forced)
}

/** Runs a script with `$1`, `$2` … and answers the CPU seconds of everything in it, by bash's own clock. */
export function runTimed(script: string, args: readonly string[] = []): Promise<number> {
  return new Promise((resolve, reject) => {
    const timed = `set -o pipefail; TIMEFORMAT='%U %S'; time { ${script}\n}`
    const child = spawn('bash', ['-c', timed, 'bash', ...args], { stdio: ['ignore', 'ignore', 'pipe'] })
    let err = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      err += text
    })
    child.once('error', reject)
    child.once('close', (code) => {
      const seconds = parseBashTime(err)
      if (code === 0 && seconds !== undefined) resolve(seconds)
      else reject(new Error(`${script} ${args.join(' ')} ended with ${code}: ${err}`))
    })
  })
}

/** Not measured. Throws with what the script said. */
export function runScript(script: string, args: readonly string[] = []): string {
  const { status, stdout, stderr } = spawnSync('bash', ['-c', `set -e; ${script}`, 'bash', ...args], {
    encoding: 'utf8',
    maxBuffer: 64 * 2 ** 20,
  })
  if (status !== 0) throw new Error(`${script} ${args.join(' ')} ended with ${status}: ${stderr}${stdout}`)
  return stdout
}
