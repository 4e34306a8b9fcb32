/**
 * Which processes belong to a VM. The program of a VM leads a session and a process group of its own, and both ids
 * are its pid; the kernel gives a pid to nobody else while a session or a group still carries it. So "the members of
 * pid P" stay well defined after the leader itself has ended.
 */
import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'

export interface ProcessEntry {
  readonly pid: number
  readonly groupId: number
  readonly sessionId: number
  /** dead: ended, and its parent has not looked yet. */
  readonly state: 'active' | 'stopped' | 'dead'
  readonly startTicks: number
}

export interface ProcessTable {
  /** Differs after each boot; ticks and pids of another boot mean nothing. */
  readonly bootId: string
  find(pid: number): ProcessEntry | undefined
  /** Everything in the session or the group of that leader, ended ones included. */
  members(leaderPid: number): ProcessEntry[]
  /**
   * undefined: a thread of it may still run. Otherwise a text that changes if any of them runs for even an instant
   * (each thread's count of context switches): the proof that a process stood still in between.
   */
  stillness(pid: number): string | undefined
}

export function openProcessTable(platform: NodeJS.Platform = process.platform): ProcessTable {
  return platform === 'linux' ? procTable() : psTable()
}

/** proc(5): the name in parentheses may hold anything, so fields are counted from the last ")". */
export function parseStat(pid: number, text: string): ProcessEntry {
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  const state = fields[0] ?? 'X'
  return {
    pid,
    groupId: Number(fields[2]),
    sessionId: Number(fields[3]),
    state: stateOf(state),
    startTicks: Number(fields[19]),
  }
}

const stateOf = (letter: string): ProcessEntry['state'] =>
  /^[Tt]/.test(letter) ? 'stopped' : /^[ZXx]/.test(letter) ? 'dead' : 'active'

function procTable(): ProcessTable {
  const find = (pid: number) => {
    const text = readOrGone(`/proc/${pid}/stat`)
    return text === undefined ? undefined : parseStat(pid, text)
  }
  return {
    bootId: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
    find,
    members: (leaderPid) =>
      readdirSync('/proc')
        .filter((name) => /^\d+$/.test(name))
        .map((name) => find(Number(name)))
        .filter((entry) => entry !== undefined)
        .filter((entry) => entry.sessionId === leaderPid || entry.groupId === leaderPid),
    stillness: threadsAtRest,
  }
}

/** /proc/P/stat shows the first thread only; another one may be inside a write, which a stop signal does not cut short. */
function threadsAtRest(pid: number): string | undefined {
  const counts: string[] = []
  for (const thread of threadsOf(pid)) {
    const status = readOrGone(`/proc/${pid}/task/${thread}/status`)
    if (status === undefined) continue
    const state = /^State:\t(\S)/m.exec(status)?.[1] ?? 'X'
    if (stateOf(state) === 'active') return undefined
    counts.push(`${thread}=${(status.match(/ctxt_switches:\t\d+/g) ?? []).join(',')}`)
  }
  return counts.join(' ')
}

function threadsOf(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/task`)
  } catch {
    return []
  }
}

function readOrGone(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    // ESRCH: it ended between the open and the read.
    if (code === 'ENOENT' || code === 'ESRCH') return undefined
    throw error
  }
}

/** For systems without /proc (macOS): start times in whole seconds, and no proof of stillness beyond the state. */
function psTable(): ProcessTable {
  const all = () =>
    execFileSync('ps', ['-A', '-o', 'pid=,pgid=,stat=,lstart='], {
      encoding: 'utf8',
      env: { ...process.env, LC_ALL: 'C' },
      maxBuffer: 16 * 1024 * 1024,
    })
      .split('\n')
      .map((line) => /^\s*(\d+)\s+(\d+)\s+(\S+)\s+(.+)$/.exec(line))
      .filter((match) => match !== null)
      .map(
        (match): ProcessEntry => ({
          pid: Number(match[1]),
          groupId: Number(match[2]),
          sessionId: Number(match[2]),
          state: stateOf(match[3] ?? 'X'),
          startTicks: Date.parse(match[4] ?? '') / 1000,
        }),
      )
  const find = (pid: number) => all().find((entry) => entry.pid === pid)
  return {
    bootId: '',
    find,
    members: (leaderPid) => all().filter((entry) => entry.groupId === leaderPid),
    stillness: (pid) => (find(pid)?.state === 'active' ? undefined : ''),
  }
}
