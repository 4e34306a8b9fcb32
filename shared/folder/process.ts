/**
 * The running VM: a process group and session of its own, so that it outlives whoever started it. The program is held
 * behind a pipe until run.json is durable: if the provider dies in between, the pipe closes and nothing runs that
 * nobody knows of.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, fstatSync, openSync, readSync, rmSync, statSync } from 'node:fs'
import type { Clock } from '../clock.ts'
import { HotsiteError } from '../errors/hotsite-error.ts'
import { type FolderVm, guestLogPath, heartbeatPath } from './layout.ts'
import type { ProcessEntry, ProcessTable } from './process-table.ts'
import type { RunFile } from './schema.ts'
import { disksOf, readFence, readRun, writeRun } from './vm-file.ts'

const LOG_TAIL_BYTES = 2_000

/** Every process of the VM that still lives; none: the VM is off. */
export function membersOf(run: RunFile | undefined, table: ProcessTable): ProcessEntry[] {
  if (!run || run.bootId !== table.bootId) return []
  const leader = table.find(run.pid)
  // The pid was given to somebody else, which happens only after the whole group has gone.
  if (leader && leader.startTicks !== run.startTicks) return []
  return table
    .members(run.pid)
    .filter((entry) => entry.state !== 'dead' && entry.startTicks >= run.startTicks)
}

export function isRunning(run: RunFile | undefined, table: ProcessTable): boolean {
  if (!run || run.bootId !== table.bootId) return false
  const leader = table.find(run.pid)
  if (leader && leader.startTicks === run.startTicks && leader.state !== 'dead') return true
  return membersOf(run, table).length > 0
}

/**
 * To every process of the VM. The group of the leader comes first, and last to continue: a shell that saw its jobs
 * stopped while it runs itself would take them for suspended by a user, and end.
 */
export function signalVm(run: RunFile | undefined, table: ProcessTable, signal: NodeJS.Signals): void {
  const groups = [...new Set(membersOf(run, table).map((entry) => entry.groupId))]
  const leaderOrder = signal === 'SIGCONT' ? 1 : -1
  groups.sort((a, b) => leaderOrder * (Number(a === run?.pid) - Number(b === run?.pid)))
  for (const groupId of groups) {
    try {
      process.kill(-groupId, signal)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
    }
  }
}

/** Waits until nothing of the VM lives any more; false when it still does after `timeoutMs`. */
export async function waitUntilOff(request: {
  vm: FolderVm
  table: ProcessTable
  clock: Clock
  timeoutMs: number
  signal?: AbortSignal
}): Promise<boolean> {
  const { vm, table, clock, timeoutMs, signal } = request
  const deadline = clock.monotonicMs() + timeoutMs
  while (isRunning(readRun(vm.dir), table)) {
    if (clock.monotonicMs() >= deadline) return false
    await clock.sleep(20, signal)
  }
  return true
}

/**
 * Starts the program of the VM and returns once it has been let go. Throws `vm-fenced`, `disk-missing` and
 * `vm-start-failed`. The caller makes sure that it is not running.
 */
export async function startProgram(vm: FolderVm, table: ProcessTable, clock: Clock): Promise<RunFile> {
  refuseFenced(vm)
  const disks = disksOf(vm)
  // A heartbeat file is a sign of life of this run only.
  rmSync(heartbeatPath(vm.dir), { force: true })
  const logFd = openSync(guestLogPath(vm.dir), 'a', 0o644)
  const child = spawn('sh', ['-c', 'read -r go && exec "$@" </dev/null', 'sh', ...vm.file.command], {
    cwd: vm.dir,
    detached: true,
    stdio: ['pipe', logFd, logFd],
    env: guestEnvironment(vm, disks),
  })
  closeSync(logFd)
  const failed = new Promise<never>((_, reject) => {
    child.on('error', (error) =>
      reject(
        new HotsiteError('vm-start-failed', `cannot start VM ${vm.file.name}: ${error.message}`, {
          cause: error,
        }),
      ),
    )
  })
  failed.catch(() => {})
  // A program that ended already has closed its end; the caller sees that it is gone.
  child.stdin?.on('error', () => {})
  const entry = child.pid === undefined ? undefined : table.find(child.pid)
  if (!entry) {
    child.stdin?.destroy()
    await Promise.race([failed, once(child, 'exit')])
    throw startFailure(vm)
  }
  const run: RunFile = {
    pid: entry.pid,
    startTicks: entry.startTicks,
    bootId: table.bootId,
    startedAtMs: clock.now(),
  }
  try {
    writeRun(vm.dir, run)
    refuseFenced(vm)
  } catch (error) {
    child.stdin?.destroy()
    throw error
  }
  child.stdin?.end('go\n')
  child.unref()
  return run
}

/** With what the guest said last. */
export function startFailure(vm: FolderVm): HotsiteError {
  const tail = guestLogTail(vm)
  return new HotsiteError(
    'vm-start-failed',
    `VM ${vm.file.name} ended right after its start${tail ? `; the end of ${guestLogPath(vm.dir)}: ${tail}` : ' and left no guest log'}`,
    { details: { vmDir: vm.dir, logTail: tail } },
  )
}

export function refuseFenced(vm: FolderVm): void {
  const fence = readFence(vm.dir)
  if (!fence) return
  throw new HotsiteError(
    'vm-fenced',
    `VM ${vm.file.name} is fenced at epoch ${fence.epoch}: ${fence.reason}`,
    { details: fence },
  )
}

/** Age of the newest heartbeat of this run; null: none yet. A clock that was set back makes it 0, not negative. */
export function heartbeatAgeMs(vm: FolderVm, nowMs: number): number | null {
  try {
    return Math.max(0, nowMs - statSync(heartbeatPath(vm.dir)).mtimeMs)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw error
  }
}

function guestLogTail(vm: FolderVm): string {
  const fd = openSync(guestLogPath(vm.dir), 'r')
  try {
    const sizeBytes = fstatSync(fd).size
    const tail = Buffer.alloc(Math.min(sizeBytes, LOG_TAIL_BYTES))
    readSync(fd, tail, 0, tail.length, sizeBytes - tail.length)
    return tail.toString('utf8').trim()
  } finally {
    closeSync(fd)
  }
}

/** The daemon's own environment stays with the daemon (I15), except what a program needs to be found and to speak. */
function guestEnvironment(
  vm: FolderVm,
  disks: readonly { diskId: string; name: string; path: string }[],
): NodeJS.ProcessEnv {
  const passed = ['PATH', 'HOME', 'LANG', 'LC_ALL', 'TZ', 'TMPDIR']
  return {
    ...Object.fromEntries(
      passed.flatMap((name) => (process.env[name] ? [[name, process.env[name] as string]] : [])),
    ),
    HOTSITE_VM_DIR: vm.dir,
    HOTSITE_VM_DISKS: JSON.stringify(disks.map(({ diskId, name, path }) => ({ id: diskId, name, path }))),
    HOTSITE_VM_HEARTBEAT: heartbeatPath(vm.dir),
  }
}
