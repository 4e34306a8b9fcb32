/**
 * Begins a backup job, with the guest's applications and file systems at rest for that instant if it was asked for: its
 * agent runs the hooks of its applications, flushes and freezes file systems; the job begins; they go on. All three are one
 * call of virsh, so that the thaw comes even when this process dies in the middle.
 */
import type { Domain } from '#shared/libvirt/domain.ts'
import type { Consistency } from '../port.ts'
import { guardFreeze } from './freeze-guard.ts'
import type { SnapshotDeps } from './running-snapshot.ts'

export interface BegunBackup {
  readonly consistency: Consistency
  /** At most so long nothing could be written. */
  readonly freezeMs: number
  /** Why it is not application-consistent although it was asked for. */
  readonly notQuiesced?: string
}

/** Throws what `backup-begin` is refused with. `paths`: of its arguments. */
export async function beginBackup(
  deps: SnapshotDeps,
  domain: Domain,
  { paths, quiesce }: { readonly paths: readonly string[]; readonly quiesce: boolean },
): Promise<BegunBackup> {
  const begin = ['backup-begin', domain.uuid, ...paths]
  if (!quiesce || !domain.hasAgent) {
    await deps.virsh.run(begin)
    const why = quiesce ? { notQuiesced: 'no guest agent answers in it' } : {}
    return { consistency: 'crash', freezeMs: 0, ...why }
  }
  const held = await beginFrozen(deps, domain, begin)
  // Why it was refused only a call of its own tells; what comes of it is crash-consistent.
  if (!held.isBegun) await deps.virsh.run(begin)
  const { freezeMs } = held
  if (held.isBegun && held.isHeld) return { consistency: 'application', freezeMs }
  const notQuiesced = held.isFrozen
    ? `its file systems did not stay frozen until the copy began (limit ${deps.freezeLimitMs} ms)`
    : 'its guest agent could not freeze the file systems'
  return { consistency: 'crash', freezeMs, notQuiesced }
}

async function beginFrozen(deps: SnapshotDeps, { uuid, name }: Domain, begin: readonly string[]) {
  const { virsh, uri, files, clock, log, freezeLimitMs } = deps
  files.markFrozen(uuid)
  const guard = guardFreeze({ uri, uuid, limitMs: freezeLimitMs })
  const startedMs = clock.monotonicMs()
  try {
    const [froze, begun, thawed] = await virsh.batch([['domfsfreeze', uuid], begin, ['domfsthaw', uuid]])
    const freezeMs = clock.monotonicMs() - startedMs
    const isThawed = thawed !== undefined
    if (isThawed) {
      guard.release()
      files.unmarkFrozen(uuid)
    } else guard.thaw()
    log.info('libvirt.guest-frozen', { vm: name, froze: froze ?? '', thawed: thawed ?? '', freezeMs })
    // One that the guard had let go before has nothing left to thaw.
    return {
      isFrozen: countIn(froze) > 0,
      isBegun: begun !== undefined,
      isHeld: countIn(froze) > 0 && countIn(thawed) > 0,
      freezeMs,
    }
  } catch (error) {
    // An agent that hangs holds virsh up until that is ended; whether libvirt itself is away, the next call tells.
    guard.thaw()
    log.warn('libvirt.freeze-hangs', { vm: name, error })
    return { isFrozen: false, isBegun: false, isHeld: false, freezeMs: clock.monotonicMs() - startedMs }
  }
}

/** "Froze 2 filesystem(s)" */
function countIn(said: string | undefined): number {
  return Number(/\d+/.exec(said ?? '')?.[0] ?? 0)
}
