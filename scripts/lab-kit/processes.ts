import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** A process this lab started, told apart from a later one with the same number by its start time. */
export interface LabProcess {
  readonly name: string
  readonly pid: number
  readonly startTicks: string
}

export const hotsiteEntry: string = fileURLToPath(new URL('../hotsite.ts', import.meta.url))

/** Stripping the types of every file anew costs each start some tenths of a second. */
const compileCache = fileURLToPath(new URL('../../node_modules/.cache/hotsite', import.meta.url))

/** Start time in clock ticks since boot: field 22 of /proc/<pid>/stat (proc(5)), counted after the name's closing parenthesis. */
function startTicksOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return fields[0] === 'Z' ? undefined : fields[19]
  } catch {
    return undefined
  }
}

export function isRunning({ pid, startTicks }: LabProcess): boolean {
  return startTicksOf(pid) === startTicks
}

/** Starts a daemon that outlives this command. What it prints before its own log opens goes to `<dir>/start.log`. */
export function startDaemon(request: {
  name: string
  /** The program, a TypeScript file run by this Node. */
  entry: string
  args: readonly string[]
  dir: string
  env?: Readonly<Record<string, string>>
}): LabProcess {
  const out = openSync(join(request.dir, 'start.log'), 'a')
  let child: ChildProcess
  try {
    child = spawn(process.execPath, [request.entry, ...request.args], {
      cwd: request.dir,
      detached: true,
      stdio: ['ignore', out, out],
      env: { NODE_COMPILE_CACHE: compileCache, ...process.env, ...request.env },
    })
  } finally {
    closeSync(out)
  }
  child.unref()
  const pid = child.pid
  const startTicks = pid === undefined ? undefined : startTicksOf(pid)
  if (pid === undefined || startTicks === undefined)
    throw new Error(`${request.name} did not start; see ${request.dir}/start.log`)
  return { name: request.name, pid, startTicks }
}

export function signalProcess(target: LabProcess, signal: NodeJS.Signals): void {
  if (isRunning(target)) process.kill(target.pid, signal)
}

/** SIGTERM, and SIGKILL for what is still there after `graceMs`. */
export async function stopProcesses(targets: readonly LabProcess[], graceMs: number): Promise<void> {
  for (const target of targets) signalProcess(target, 'SIGTERM')
  const gone = () => targets.every((target) => !isRunning(target))
  if (!(await waitUntil(gone, graceMs))) {
    for (const target of targets) signalProcess(target, 'SIGKILL')
    await waitUntil(gone, 5_000)
  }
}

/** True as soon as `condition` holds, false after `timeoutMs`. */
export async function waitUntil(
  condition: () => boolean | Promise<boolean>,
  timeoutMs: number,
  everyMs = 50,
): Promise<boolean> {
  const deadline = performance.now() + timeoutMs
  while (!(await condition())) {
    if (performance.now() > deadline) return false
    await new Promise((resolve) => setTimeout(resolve, everyMs))
  }
  return true
}
