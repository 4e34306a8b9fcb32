/** What re-reading has shown of a disk. Only what both sides have proved is proved. */
import type { DiskProof } from '#shared/messages/reports.ts'
import { describeBlocks, describeMs } from './quantities.ts'

/** Per disk the worse of what source and target say. A side that says nothing of a disk has not proved it. */
export function worseProofs(
  source: readonly DiskProof[],
  target: readonly DiskProof[],
): readonly DiskProof[] {
  const ids = new Set([...source, ...target].map(({ diskId }) => diskId))
  return [...ids].sort().map((id) => {
    const sides = [source, target].map((side) => side.find(({ diskId }) => diskId === id))
    const times = sides.map((side) => side?.provedAtMs ?? null)
    return {
      diskId: id,
      sizeBytes: Math.max(...sides.map((side) => side?.sizeBytes ?? 0)),
      percent: Math.min(...sides.map((side) => side?.percent ?? 0)),
      provedAtMs: times.reduce((a, b) => (a === null || b === null ? null : Math.min(a, b))) ?? null,
      badBlocks: sides.reduce((sum, side) => sum + (side?.badBlocks ?? 0), 0),
    }
  })
}

/** "proved equal, 100 % of blocks, 3 h ago" */
export function proofText({ percent, provedAtMs, badBlocks }: DiskProof, nowMs: number): string {
  const pass = `${Math.floor(percent)} % of the present pass`
  if (badBlocks > 0) return `${describeBlocks(badBlocks)} not as they should be; ${pass}`
  if (provedAtMs === null) return `${pass}, never proved`
  const proved = `proved equal, 100 % of blocks, ${agoText(nowMs - provedAtMs)}`
  return percent > 0 && percent < 100 ? `${proved}; ${pass}` : proved
}

/** "just now", "3.5 h ago" */
export const agoText = (ms: number): string => (ms < 60_000 ? 'just now' : `${describeMs(ms)} ago`)

/** For a table: the worst disk in a few characters. "3 h", "62 %", "2 bad", "–" */
export function shortProof(disks: readonly DiskProof[], nowMs: number): string {
  const bad = disks.reduce((sum, { badBlocks }) => sum + badBlocks, 0)
  if (bad > 0) return `${bad} bad`
  const times = disks.map(({ provedAtMs }) => provedAtMs)
  if (times.length === 0) return '–'
  const known = times.filter((time) => time !== null)
  if (known.length === times.length) return describeMs(nowMs - Math.min(...known))
  return `${Math.floor(Math.min(...disks.map(({ percent }) => percent)))} %`
}

/** Half as long again as the policy wants: a pass takes its time, and a proof a minute late is no news. */
const lateFactor = 1.5

/** Whether the proof of a disk is older than its policy allows; a disk never proved counts from `sinceMs`. */
export function isProofLate(
  { provedAtMs }: Pick<DiskProof, 'provedAtMs'>,
  { proofHours, sinceMs, nowMs }: { proofHours: number; sinceMs: number; nowMs: number },
): boolean {
  return proofHours > 0 && nowMs - (provedAtMs ?? sinceMs) > lateFactor * proofHours * 3_600_000
}
