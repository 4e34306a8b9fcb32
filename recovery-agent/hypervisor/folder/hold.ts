import { fstatSync } from 'node:fs'
import type { Clock } from '#shared/clock.ts'
import { isRunning } from '#shared/folder/process.ts'
import type { ProcessTable } from '#shared/folder/process-table.ts'
import type { RunFile } from '#shared/folder/schema.ts'
import { readRun } from '#shared/folder/vm-file.ts'
import { freezeVm } from './freeze.ts'
import type { OpenDisk } from './open-disks.ts'

/** A VM whose disks do not change: suspended, or off and watched for a start. */
export interface Hold {
  readonly heldAtMs: number
  readonly suspended: boolean
  freezeMs(): number
  remainingMs(): number
  /** False: it ran, or was changed, at some time since. True is the last word only after `release`. */
  holds(): boolean
  release(): { readonly intact: boolean }
}

export interface HoldContext {
  readonly table: ProcessTable
  readonly clock: Clock
  readonly freezeLimitMs: number
}

export async function holdVm(
  { vmDir, disks }: { readonly vmDir: string; readonly disks: readonly OpenDisk[] },
  context: HoldContext,
): Promise<Hold> {
  const { table, clock, freezeLimitMs } = context
  const run = readRun(vmDir)
  if (!run || !isRunning(run, table)) return watchOff({ vmDir, run, disks }, context)
  const freeze = await freezeVm({ run, table, clock, limitMs: freezeLimitMs })
  return {
    heldAtMs: freeze.frozenAtMs,
    suspended: true,
    freezeMs: freeze.freezeMs,
    remainingMs: freeze.remainingMs,
    holds: () => freeze.remainingMs() > 0,
    release: () => freeze.resume(),
  }
}

/**
 * run.json is written before a program is let go, so any start in between shows in it; and whoever else writes to an
 * image changes its times.
 */
function watchOff(
  { vmDir, run, disks }: { vmDir: string; run: RunFile | undefined; disks: readonly OpenDisk[] },
  { table, clock }: HoldContext,
): Hold {
  const before = disks.map(imageState)
  const holds = () => {
    const now = readRun(vmDir)
    return (
      JSON.stringify(now) === JSON.stringify(run) &&
      !isRunning(now, table) &&
      disks.every((disk, index) => imageState(disk) === before[index])
    )
  }
  return {
    heldAtMs: clock.now(),
    suspended: false,
    freezeMs: () => 0,
    remainingMs: () => Number.POSITIVE_INFINITY,
    holds,
    release: () => ({ intact: holds() }),
  }
}

function imageState({ fd }: OpenDisk): string {
  const { size, mtimeNs, ctimeNs } = fstatSync(fd, { bigint: true })
  return `${size} ${mtimeNs} ${ctimeNs}`
}
