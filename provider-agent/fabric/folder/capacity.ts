import { statfsSync } from 'node:fs'
import si from 'systeminformation'

export interface HostCapacity {
  readonly memoryBytes: number
  readonly cpuCount: number
}

/** Of the machine we run on. Asked once: it does not change while we run, and asking costs tens of milliseconds. */
export function openMachineCapacity(): () => Promise<HostCapacity> {
  let asked: Promise<HostCapacity> | undefined
  return () => {
    asked ??= Promise.all([si.mem(), si.cpu()]).then(([memory, cpu]) => ({
      memoryBytes: memory.total,
      cpuCount: Math.max(1, cpu.cores),
    }))
    return asked
  }
}

/** What an unprivileged program may still write there. */
export function freeDiskBytes(dir: string): number {
  const { bavail, bsize } = statfsSync(dir)
  return bavail * bsize
}
