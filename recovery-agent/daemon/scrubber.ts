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
  /** A merge met a layer that is damaged, and waits until it is healed. */
  layerDamaged(vmId: VmId): void
  /** A transfer met a hash tree that contradicts itself; the store made it anew if it knew enough. */
  treeDamaged(vmId: VmId): void
  /** After a point came: why the source has to synchronize anew; undefined: it need not. */
  unhealable(vmId: VmId, seq: number): Promise<HotsiteError | undefined>
  /** The rolling proof, until the signal. */
  run(signal: AbortSignal): Promise<void>
}

export interface ScrubberOptions {
  readonly store: Pick<RemoteReplicaStore, 'list' | 'get' | 'points' | 'proof' | 'scrub' | 'verify' | 'heal'>
  readonly server: Pick<ReplicaServer, 'repair' | 'isReceiving'>
  readonly reports: Pick<ReplicaReports, 'publish'>
  /** Merges wait while layers are verified and healed. */
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
  /** VMs whose hash tree was damaged when it was needed last. */
  const withoutTree = new Set<VmId>()
  /** Somebody ordered their verification: the rolling pass keeps out of its way. */
  const verifying = new Set<VmId>()
  const timetable = new ScrubTimetable(clock)

  const badBlocks = async (vmId: VmId) =>
    (await store.proof(vmId)).reduce((sum, disk) => sum + disk.badBlocks, 0)

  const heal = (vmId: VmId) =>
    healing.run(vmId, async () => {
      const before = await badBlocks(vmId)
      const isAnyDamaged = before > 0 || (await store.points(vmId)).some(({ damaged }) => damaged)
      if (!isAnyDamaged) return
      unfinished.add(vmId)
      const layers = await store.heal(vmId)
      const round = await server.repair(vmId)
      const points = await store.points(vmId)
      const newest = newestOf(points)
      const isBeyondRepair =
        round.end === 'enough-asked' || (round.end === 'all-asked' && round.goneBlocks > 0)
      if (isBeyondRepair && newest) gone.set(vmId, newest.seq)
      else gone.delete(vmId)
      if (round.end === 'all-asked' || (round.end === 'enough-asked' && round.healedBlocks === 0))
        unfinished.delete(vmId)
      log.info('replica.heal-ended', { vmId, before, layers, ...round })
      await tell(vmId, { layers, blocks: round.healedBlocks, points })
      onHealed(vmId)
      await reports.publish(vmId)
    })

  async function tell(
    vmId: VmId,
    healed: { readonly layers: number; readonly blocks: number; readonly points: readonly PointReport[] },
  ): Promise<void> {
    const left = (await store.proof(vmId)).filter((disk) => disk.badBlocks > 0)
    const damaged = healed.points.filter((point) => point.damaged).map(({ epoch, seq }) => `${epoch}/${seq}`)
    if (left.length === 0 && damaged.length === 0) {
      if (healed.layers + healed.blocks > 0)
        raise({ severity: 'warning', code: 'layer-damaged', message: healedMessage(vmId, healed), vmId })
      return
    }
    const disks = left.map(({ diskId, badBlocks }) => `${badBlocks} blocks of disk ${diskId}`).join(', ')
    const message =
      `the replica of VM ${vmId} is damaged (${disks || 'disks of earlier points'}); points ${damaged.join(', ') || 'none'} are not served. ` +
      'Check the disk of this host; what the source still has is healed by itself'
    raise({ severity: 'critical', code: 'replica-damaged', message, vmId })
  }

  const inBackground = (vmId: VmId, healed: Promise<void>) => {
    healed.catch((error: unknown) => log.warn('a replica could not be healed', { vmId, error }))
  }

  /** Leaves of layers that are not known are read from their files; a tree is made of them when it is needed next. */
  async function learn(vmId: VmId): Promise<void> {
    await healing.run(vmId, () => store.verify({ vmId, percent: 0, seed: 0 }))
    await heal(vmId)
  }

  async function slice(vmId: VmId): Promise<ScrubSlice> {
    const result = await store.scrub(vmId, limits.scrubSliceMs)
    if (result.foundDamage) {
      await reports.publish(vmId)
      await heal(vmId)
    }
    return result
  }

  async function verify({ vmId, percent }: Parameters<Scrubber['verify']>[0]): Promise<VerifyResult> {
    const outcome = await store.verify({ vmId, percent, seed: intBelow(rng, 2 ** 32) })
    if ((await badBlocks(vmId)) > 0 || outcome.damagedPoints.length > 0) await heal(vmId)
    else await reports.publish(vmId)
    const left = new Map((await store.proof(vmId)).map((disk) => [disk.diskId, disk.badBlocks]))
    const damaged = (await store.points(vmId)).filter((point) => point.damaged)
    return {
      disks: outcome.disks.map(({ healedBlocks, ...disk }) => {
        const badBlocks = left.get(disk.diskId) ?? disk.badBlocks
        return { ...disk, badBlocks, healedBlocks: healedBlocks + Math.max(0, disk.badBlocks - badBlocks) }
      }),
      damagedPoints: damaged.map(({ epoch, seq }) => ({ epoch, seq })),
    }
  }

  return {
    heal,
    sourceOpened: (vmId) => inBackground(vmId, heal(vmId)),
    layerDamaged: (vmId) => inBackground(vmId, heal(vmId)),
    treeDamaged(vmId) {
      // Once is ordinary: the next attempt finds the tree made anew.
      if (withoutTree.delete(vmId)) inBackground(vmId, learn(vmId))
      else withoutTree.add(vmId)
    },
    async unhealable(vmId, seq) {
      withoutTree.delete(vmId)
      if (unfinished.delete(vmId)) inBackground(vmId, heal(vmId))
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
      verifying.add(vmId)
      try {
        return await verify({ vmId, percent })
      } finally {
        verifying.delete(vmId)
        // What it found stands for a moment before the next pass begins.
        timetable.later(vmId)
        onHealed(vmId)
      }
    },
    async run(signal) {
      let replicas: Awaited<ReturnType<typeof store.list>> = []
      let listedMs = Number.NEGATIVE_INFINITY
      while (!signal.aborted) {
        if (clock.monotonicMs() - listedMs >= limits.scrubIdleMs) {
          listedMs = clock.monotonicMs()
          replicas = await store.list().catch(() => replicas)
        }
        const next = timetable.next(replicas)
        if (next && verifying.has(next.vmId)) timetable.later(next.vmId)
        else if (next?.waitMs === 0 && !server.isReceiving()) {
          try {
            const done = await slice(next.vmId)
            if (timetable.took(next.vmId, done) === 'report') await reports.publish(next.vmId)
          } catch (error) {
            if (signal.aborted) return
            log.warn('a replica could not be read again', { vmId: next.vmId, error })
            timetable.later(next.vmId)
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

function healedMessage(vmId: VmId, { layers, blocks }: { layers: number; blocks: number }): string {
  const what = [
    ...(layers > 0
      ? [`${layers} layer ${layers === 1 ? 'file' : 'files'} with wrong tables, size or name`]
      : []),
    ...(blocks > 0 ? [`${blocks} rotten ${blocks === 1 ? 'block' : 'blocks'}`] : []),
  ]
  return `${what.join(' and ')} of the replica of VM ${vmId} were found and healed; check the disk of this host`
}
