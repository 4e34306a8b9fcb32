/** What the replication engine says of itself that a person must know: proof, resynchronization, pace, points. */
import type { DiskProof, ReplicationReport } from '#shared/messages/reports.ts'
import type { HealthReason } from './health.ts'
import { isProofLate, proofText } from './proof.ts'
import { describeBytes, describeMs, describeRate } from './quantities.ts'
import { pendingResyncText } from './resync-words.ts'

export interface EngineState {
  readonly nowMs: number
  /** The worse of both sides, per disk. */
  readonly proof: readonly DiskProof[]
  /** Of the policy; 0: only when asked. */
  readonly proofHours: number
  /** A disk never proved is late from here on. */
  readonly proofSinceMs: number
  /** Disks the VM had when it was protected; another one was added since. */
  readonly firstDiskIds: readonly string[]
  readonly resync: ReplicationReport['resync']
  readonly forecast: ReplicationReport['forecast']
  readonly slowedByMs: number
  readonly mergeDebtBytes: number
  /** Newest first. */
  readonly points: readonly {
    readonly name: string
    readonly suspect: string | null
    readonly damaged: boolean
  }[]
}

export function engineReasons(state: EngineState): readonly HealthReason[] {
  return [...ofPoints(state), ...ofProof(state), ...ofResync(state), ...ofPace(state)]
}

const verifyFully = { command: 'vm verify', options: '--full' } as const

function ofPoints({ points }: EngineState): readonly HealthReason[] {
  const reasons: HealthReason[] = []
  const damaged = points.filter((point) => point.damaged)
  if (damaged.length > 0) {
    const names = damaged.map(({ name }) => name)
    const list = names.length > namedAtMost ? `${names.slice(0, namedAtMost).join(', ')} …` : names.join(', ')
    const sound = points.find((point) => !point.damaged)
    const use = sound ? `the newest sound one is ${sound.name}` : 'there is no sound one'
    reasons.push({
      severity: points[0]?.damaged || !sound ? 'critical' : 'warning',
      text: `${damaged.length === 1 ? 'recovery point' : `${damaged.length} recovery points:`} ${list} damaged at the target; ${use}`,
      answer: verifyFully,
    })
  }
  const newest = points[0]
  if (newest?.suspect && !newest.damaged) {
    const text = `the newest recovery point ${newest.name} is suspect: ${newest.suspect}`
    reasons.push({ severity: 'warning', text, answer: { command: 'point list', options: '--why' } })
  }
  return reasons
}

/** Points named in one sentence; the list has them all. */
const namedAtMost = 5

function ofProof(state: EngineState): readonly HealthReason[] {
  const { proof, proofHours, proofSinceMs, nowMs } = state
  const bad = proof.filter(({ badBlocks }) => badBlocks > 0)
  const reasons: HealthReason[] = bad.map((disk) => ({
    severity: 'critical',
    text: `${disk.diskId}: ${proofText(disk, nowMs)}`,
    answer: verifyFully,
  }))
  const rule = { proofHours, sinceMs: proofSinceMs, nowMs }
  const sound = proof.filter(({ badBlocks }) => badBlocks === 0)
  const isLate = (disk: DiskProof) => isProofLate(disk, { ...rule, sinceMs: sinceOf(disk, state) })
  for (const disk of sound.filter(isLate))
    reasons.push({
      severity: 'warning',
      text: `${disk.diskId}: ${proofText(disk, nowMs)}; every block is to be read again within ${describeMs(proofHours * 3_600_000)}`,
      answer: verifyFully,
    })
  if (proof.length === 0 && isProofLate({ provedAtMs: null }, rule)) {
    const text = `no disk was ever proved; every block is to be read again within ${describeMs(proofHours * 3_600_000)}`
    reasons.push({ severity: 'warning', text, answer: verifyFully })
  }
  return reasons
}

/** A disk added to a VM protected long ago is not late at once: it counts from what was last proved beside it. */
function sinceOf({ diskId }: DiskProof, { proof, proofSinceMs, firstDiskIds }: EngineState): number {
  if (firstDiskIds.includes(diskId)) return proofSinceMs
  return Math.max(proofSinceMs, ...proof.map(({ provedAtMs }) => provedAtMs ?? 0))
}

function ofResync({ resync, nowMs }: EngineState): readonly HealthReason[] {
  if (!resync || resync.waitsFor === 'estimating') return []
  const text = `${pendingResyncText(resync, nowMs)}; until then no new point is made`
  if (resync.waitsFor === 'start-time') return [{ severity: 'warning', text }]
  return [{ severity: 'warning', text, answer: { command: 'vm resync', options: '--now' } }]
}

function ofPace({ forecast, slowedByMs, mergeDebtBytes, nowMs }: EngineState): readonly HealthReason[] {
  const reasons: HealthReason[] = []
  if (forecast && forecast.breachAtMs !== null) {
    const leftMs = forecast.breachAtMs - nowMs
    const when =
      leftMs > 0 ? `breach expected in ${describeMs(leftMs)}` : `breached for ${describeMs(-leftMs)}`
    const rates = [`changes ${describeRate(forecast.churnBytesPerSecond)}`, ...linkTexts(forecast)]
    reasons.push({ severity: 'warning', text: `RPO ${when} (${rates.join(', ')})` })
  }
  if (slowedByMs > 0) {
    const debt = mergeDebtBytes > 0 ? ` (${describeBytes(mergeDebtBytes)} to merge)` : ''
    reasons.push({
      severity: 'warning',
      text: `slowed by merges: +${describeMs(slowedByMs)} per cycle${debt}`,
    })
  }
  return reasons
}

function linkTexts({ linkBytesPerSecond }: NonNullable<EngineState['forecast']>): string[] {
  if (linkBytesPerSecond === null) return []
  return [linkBytesPerSecond === 0 ? 'link down' : `link ${describeRate(linkBytesPerSecond)}`]
}
