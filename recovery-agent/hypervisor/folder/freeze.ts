import type { Clock } from '#shared/clock.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { membersOf, signalVm } from '#shared/folder/process.ts'
import type { ProcessTable } from '#shared/folder/process-table.ts'
import type { RunFile } from '#shared/folder/schema.ts'
import { startWatchdog } from './watchdog.ts'

/** A VM that stands still. */
export interface Freeze {
  readonly frozenAtMs: number
  readonly freezeMs: () => number
  /** Milliseconds until the watchdog lets the VM go. */
  readonly remainingMs: () => number
  /** Lets the VM go. intact: it stood still from `frozenAtMs` until now. Repeatable; the first answer counts. */
  resume(): { readonly intact: boolean }
}

/**
 * Suspends every process of the VM and waits until each thread of each has come to rest: a thread inside a write when
 * the signal arrives finishes that write first. Throws `vm-suspend-failed`; the VM runs again then.
 */
export async function freezeVm(request: {
  run: RunFile
  table: ProcessTable
  clock: Clock
  limitMs: number
}): Promise<Freeze> {
  const { run, table, clock, limitMs } = request
  const watchdog = startWatchdog(run.pid, limitMs)
  const startedMs = clock.monotonicMs()
  const thaw = () => {
    signalVm(run, table, 'SIGCONT')
    watchdog[Symbol.dispose]()
  }
  try {
    let rest: string | undefined
    for (;;) {
      // Again in each round: a process that forked as the signal arrived leaves a child that has not seen it.
      signalVm(run, table, 'SIGSTOP')
      rest = restOf(run, table)
      if (rest !== undefined) break
      if (clock.monotonicMs() - startedMs > limitMs) {
        throw new HotsiteError(
          'vm-suspend-failed',
          `the processes of the VM (group ${run.pid}) did not stand still within ${limitMs} ms`,
        )
      }
      await clock.sleep(1)
    }
    return frozen({ run, table, clock, limitMs, startedMs, rest, thaw })
  } catch (error) {
    thaw()
    throw error
  }
}

function frozen(state: {
  run: RunFile
  table: ProcessTable
  clock: Clock
  limitMs: number
  startedMs: number
  rest: string
  thaw: () => void
}): Freeze {
  const { run, table, clock, limitMs, startedMs, rest, thaw } = state
  const elapsedMs = () => clock.monotonicMs() - startedMs
  let ended: { readonly intact: boolean; readonly freezeMs: number } | undefined
  return {
    frozenAtMs: clock.now(),
    freezeMs: () => ended?.freezeMs ?? elapsedMs(),
    remainingMs: () => Math.max(0, limitMs - elapsedMs()),
    resume() {
      if (!ended) {
        const intact = elapsedMs() < limitMs && restOf(run, table) === rest
        thaw()
        ended = { intact, freezeMs: elapsedMs() }
      }
      return { intact: ended.intact }
    },
  }
}

/** undefined: something of the VM may still run, or nothing of it is left. */
function restOf(run: RunFile, table: ProcessTable): string | undefined {
  const members = membersOf(run, table).sort((a, b) => a.pid - b.pid)
  if (members.length === 0) return undefined
  const parts: string[] = []
  for (const member of members) {
    const stillness = member.state === 'stopped' ? table.stillness(member.pid) : undefined
    if (stillness === undefined) return undefined
    parts.push(`${member.pid}/${member.startTicks}: ${stillness}`)
  }
  return parts.join('\n')
}
