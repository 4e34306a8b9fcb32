import { readdirSync, readFileSync } from 'node:fs'
import { waitUntil } from '../lab-kit/processes.ts'
import { parseSentBytes } from './parse.ts'
import type { Job, Measurement, Tool } from './workload.ts'

/** USER_HZ is 100 on every Linux that Node runs on (proc(5), sysconf(_SC_CLK_TCK)). */
const ticksPerSecond = 100

/** A process is at rest when it used no more than this in the time between two looks. */
const restingTicks = 1
const restLookMs = 250
const restTimeoutMs = 20_000

/** The fields of /proc/<pid>/stat from the third on (proc(5)); undefined: no such process. */
function statOf(pid: number | string): readonly string[] | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  } catch {
    // It ended between the listing and the reading.
    return undefined
  }
}

/** utime, stime, and those of children already waited for: fields 14 to 17. */
export function cpuSecondsOf(pid: number): number {
  const fields = statOf(pid)
  if (!fields) throw new Error(`process ${pid} ended while it was measured`)
  return fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0) / ticksPerSecond
}

const cpuSecondsOfAll = (pids: readonly number[]) => pids.reduce((sum, pid) => sum + cpuSecondsOf(pid), 0)

export function hasChildren(pid: number): boolean {
  return readdirSync('/proc').some((name) => /^\d+$/.test(name) && statOf(name)?.[1] === String(pid))
}

/** Until the processes do nothing any more; gives up silently, since then the next reading is merely a bit too high. */
export async function untilResting(pids: readonly number[]): Promise<void> {
  let last = cpuSecondsOfAll(pids)
  await waitUntil(
    () => {
      const now = cpuSecondsOfAll(pids)
      const rests = (now - last) * ticksPerSecond <= restingTicks
      last = now
      return rests
    },
    restTimeoutMs,
    restLookMs,
  )
}

/** From /proc, which shows the network namespace of the reader; a /sys that was mounted before shows another. */
export function loopbackBytes(): number {
  return parseSentBytes(readFileSync('/proc/net/dev', 'utf8'), 'lo')
}

/** One run of a tool that is prepared. */
export async function measure(tool: Tool, job: Job): Promise<Measurement> {
  const cpuBefore = cpuSecondsOfAll(tool.pids())
  const bytesBefore = loopbackBytes()
  const startedMs = performance.now()
  const goneCpuSeconds = await tool.run(job)
  const seconds = (performance.now() - startedMs) / 1000
  const wireBytes = tool.onWire === false ? null : loopbackBytes() - bytesBefore
  await tool.settle?.()
  return { seconds, cpuSeconds: cpuSecondsOfAll(tool.pids()) - cpuBefore + goneCpuSeconds, wireBytes }
}
