import { readFileSync } from 'node:fs'

/** Of one run of one tool on one work. */
export interface Measurement {
  readonly seconds: number
  /** User and system time of every process of the tool, at both ends. */
  readonly cpuSeconds: number
  /** Bytes on the loopback interface, headers included. */
  readonly wireBytes: number
}

/** USER_HZ is 100 on every Linux that Node runs on (proc(5), sysconf(_SC_CLK_TCK)). */
const ticksPerSecond = 100

/** utime, stime, and those of children already waited for: fields 14 to 17 of /proc/<pid>/stat. */
export function cpuSecondsOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0) / ticksPerSecond
}

function loopbackBytes(): number {
  return Number(readFileSync('/sys/class/net/lo/statistics/tx_bytes', 'utf8'))
}

/** Runs `work` and answers what it took; `cpuSeconds` is read before and after. */
export async function measure(
  cpuSeconds: () => number,
  work: () => Promise<number | undefined>,
): Promise<Measurement> {
  const cpuBefore = cpuSeconds()
  const bytesBefore = loopbackBytes()
  const startedMs = performance.now()
  const extraCpuSeconds = (await work()) ?? 0
  return {
    seconds: (performance.now() - startedMs) / 1000,
    cpuSeconds: cpuSeconds() - cpuBefore + extraCpuSeconds,
    wireBytes: loopbackBytes() - bytesBefore,
  }
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle] ?? 0
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? 0) + upper) / 2
}
