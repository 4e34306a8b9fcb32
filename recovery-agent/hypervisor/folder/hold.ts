import type { Clock } from '#shared/clock.ts'
import { isRunning } from '#shared/folder/process.ts'
import type { ProcessTable } from '#shared/folder/process-table.ts'
import type { RunFile } from '#shared/folder/schema.ts'
import { readRun } from '#shared/folder/vm-file.ts'
import { freezeVm } from './freeze.ts'

/** A VM whose disks do not change: suspended, or off and watched for a start. */
export interface Hold {
  readonly heldAtMs: number
  readonly suspended: boolean
  freezeMs(): number
  remainingMs(): number
  release(): { readonly intact: boolean }
}

export interface HoldContext {
  readonly table: ProcessTable
  readonly clock: Clock
  readonly freezeLimitMs: number
}

export async function holdVm(vmDir: string, context: HoldContext): Promise<Hold> {
  const { table, clock, freezeLimitMs } = context
  const run = readRun(vmDir)
  if (!run || !isRunning(run, table)) return watchOff(vmDir, run, context)
  const freeze = await freezeVm({ run, table, clock, limitMs: freezeLimitMs })
  return {
    heldAtMs: freeze.frozenAtMs,
    suspended: true,
    freezeMs: freeze.freezeMs,
    remainingMs: freeze.remainingMs,
    release: () => freeze.resume(),
  }
}

/** run.json is written before a program is let go, so any start in between shows in it. */
function watchOff(vmDir: string, run: RunFile | undefined, { table, clock }: HoldContext): Hold {
  return {
    heldAtMs: clock.now(),
    suspended: false,
    freezeMs: () => 0,
    remainingMs: () => Number.POSITIVE_INFINITY,
    release: () => {
      const now = readRun(vmDir)
      return { intact: JSON.stringify(now) === JSON.stringify(run) && !isRunning(now, table) }
    },
  }
}
