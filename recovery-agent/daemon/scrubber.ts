/**
 * The proof of the replicas at this host: a rolling pass over all stored blocks, what is asked for on demand, and what
 * follows when something is wrong.
 *
 *   found ─▶ heal here (names, tables) ─▶ ask the source for blocks ─▶ still damaged in the newest point after the next
 *   one has come ─▶ the source synchronizes anew (`replica-damaged`), into a layer of its own
 */

import type { Clock } from '#shared/clock.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { VmId } from '#shared/ids.ts'
import { KeyedLocks } from '#shared/keyed-locks.ts'
import type { Logger } from '#shared/log.ts'
import type { CommandResultOf } from '#shared/messages/commands.ts'
import type { PointReport } from '#shared/messages/reports.ts'
import { intBelow, type Rng } from '#shared/rng.ts'
import { limits } from '../limits.ts'
import type { ScrubSlice } from '../replica/port.ts'
import type { RemoteReplicaStore } from '../replica/remote.ts'
import type { RaiseEvent } from '../reports/events.ts'
import type { ReplicaReports } from '../reports/replica-reports.ts'
import type { ReplicaServer } from '../stream/target/replica-server.ts'
import { ScrubTimetable } from './scrub-timetable.ts'

type VerifyResult = CommandResultOf<'replica.verify'>

export interface Scrubber {
  /** Reads so many percent of the blocks now, heals what it can, and says what is left. */
  verify(request: { readonly vmId: VmId; readonly percent: number }): Promise<VerifyResult>
  /** Something is known to be wrong: heals what it can. */
  heal(vmId: VmId): Promise<void>
  /** A source is there, and may have what was lost. */
  sourceOpened(vmId: VmId): void
  /** After a point came: why the source has to synchronize anew; undefined: it need not. */
  unhealable(vmId: VmId, seq: number): Promise<HotsiteError | undefined>
  /** The rolling proof, until the signal. */
  run(signal: AbortSignal): Promise<void>
}

export interface ScrubberOptions {
  readonly store: Pick<RemoteReplicaStore, 'list' | 'get' | 'points' | 'proof' | 'scrub' | 'verify' | 'heal'>
  readonly server: Pick<ReplicaServer, 'repair' | 'isReceiving'>
  readonly reports: Pick<ReplicaReports, 'publish'>
  /** Merges wait while layers are healed. */
  readonly onHealed: (vmId: VmId) => void
  readonly raise: RaiseEvent
  readonly clock: Clock
  readonly rng: Rng
  readonly log: Logger
}

export function createScrubber(options: ScrubberOptions): Scrubber {
  const { store, server, reports, onHealed, raise, clock, rng, log } = options
  const healing = new KeyedLocks<VmId>()
  /** VMs whose source no longer has what is lost, or of which too much is lost to ask for; the newest point at the time. */
  const gone = new Map<VmId, number>()
  /** VMs whose healing broke off: it goes on when the next point has come, and with it a source that answers. */
  const unfinished = new Set<VmId>()

  const badBlocks = async (vmId: VmId) =>
    (await store.proof(vmId)).reduce((sum, disk) => sum + disk.badBlocks, 0)

  const heal = (vmId: VmId) =>
    healing.run(vmId, async () => {
      const before = await badBlocks(vmId)
      const isAnyDamaged = before > 0 || (await store.points(vmId)).some(({ damaged }) => damaged)
      if (!isAnyDamaged) return
      unfinished.add(vmId)
      await store.heal(vmId)
      const round = await server.repair(vmId)
      const points = await store.points(vmId)
      const newest = newestOf(points)
      const isBeyondRepair =
        round.end === 'enough-asked' || (round.end === 'all-asked' && round.goneBlocks > 0)
      if (isBeyondRepair && newest) gone.set(vmId, newest.seq)
      else gone.delete(vmId)
      if (round.end === 'all-asked' || (round.end === 'enough-asked' && round.healedBlocks === 0))
        unfinished.delete(vmId)
      log.info('replica.heal-ended', { vmId, before, ...round })
      await tell(vmId, { before, points })
      onHealed(vmId)
      await reports.publish(vmId)
    })

  async function tell(
    vmId: VmId,
    { before, points }: { before: number; points: readonly PointReport[] },
  ): Promise<void> {
    const proof = await store.proof(vmId)
    const left = proof.filter((disk) => disk.badBlocks > 0)
    if (left.length === 0) {
      const message = `${before} damaged blocks in the replica of VM ${vmId} were found and healed; check the disk of this host`
      raise({ severity: 'warning', code: 'layer-damaged', message, vmId })
      return
    }
    const disks = left.map(({ diskId, badBlocks }) => `${badBlocks} blocks of disk ${diskId}`).join(', ')
    const damaged = points.filter((point) => point.damaged).map(({ epoch, seq }) => `${epoch}/${seq}`)
    const message =
      `the replica of VM ${vmId} is damaged (${disks}); points ${damaged.join(', ') || 'none'} are not served. ` +
      'Check the disk of this host; what the source still has is healed by itself'
    raise({ severity: 'critical', code: 'replica-damaged', message, vmId })
  }

  const healInBackground = (vmId: VmId) => {
    heal(vmId).catch((error: unknown) => log.warn('a replica could not be healed', { vmId, error }))
  }

  async function slice(vmId: VmId): Promise<ScrubSlice> {
    const result = await store.scrub(vmId, limits.scrubSliceMs)
    if (result.foundDamage) {
      await reports.publish(vmId)
      await heal(vmId)
    }
    return result
  }

  return {
    heal,
    sourceOpened: healInBackground,
    async unhealable(vmId, seq) {
      if (unfinished.delete(vmId)) healInBackground(vmId)
      const since = gone.get(vmId)
      if (since === undefined || seq <= since) return undefined
      gone.delete(vmId)
      if (!newestOf(await store.points(vmId))?.damaged) return undefined
      return new HotsiteError(
        'replica-damaged',
        `blocks of the newest point of VM ${vmId} are damaged, and the source no longer has them as they were`,
        { details: { vmId, seq } },
      )
    },
    async verify({ vmId, percent }) {
      const outcome = await store.verify({ vmId, percent, seed: intBelow(rng, 2 ** 32) })
      if ((await badBlocks(vmId)) > 0) await heal(vmId)
      else await reports.publish(vmId)
      const left = new Map((await store.proof(vmId)).map((disk) => [disk.diskId, disk.badBlocks]))
      const damaged = (await store.points(vmId)).filter((point) => point.damaged)
      return {
        disks: outcome.disks.map(({ diskId, checkedBlocks, totalBlocks, ...found }) => {
          const badBlocks = left.get(diskId) ?? 0
          const healedBlocks = found.healedBlocks + Math.max(0, found.badBlocks - badBlocks)
          return { diskId, checkedBlocks, totalBlocks, badBlocks, healedBlocks }
        }),
        damagedPoints: damaged.map(({ epoch, seq }) => ({ epoch, seq })),
      }
    },
    async run(signal) {
      const timetable = new ScrubTimetable(clock)
      let replicas: Awaited<ReturnType<typeof store.list>> = []
      let listedMs = Number.NEGATIVE_INFINITY
      while (!signal.aborted) {
        if (clock.monotonicMs() - listedMs >= limits.scrubIdleMs) {
          listedMs = clock.monotonicMs()
          replicas = await store.list().catch(() => replicas)
        }
        const next = timetable.next(replicas)
        if (next?.waitMs === 0 && !server.isReceiving()) {
          try {
            const done = await slice(next.vmId)
            if (timetable.took(next.vmId, done) === 'report') await reports.publish(next.vmId)
          } catch (error) {
            if (signal.aborted) return
            log.warn('a replica could not be read again', { vmId: next.vmId, error })
            timetable.failed(next.vmId)
          }
          continue
        }
        const leastMs = server.isReceiving() ? limits.scrubYieldMs : limits.scrubSliceMs
        const waitMs = Math.max(leastMs, next?.waitMs ?? limits.scrubIdleMs)
        await clock.sleep(Math.min(waitMs, limits.scrubIdleMs), signal).catch(() => {})
      }
    },
  }
}

function newestOf(points: readonly PointReport[]): PointReport | undefined {
  return points.toSorted((a, b) => b.seq - a.seq)[0]
}
