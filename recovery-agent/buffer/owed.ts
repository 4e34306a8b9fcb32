/** Older points that the source still owes a target to which a newer one was sent first. */
import { z } from 'zod'

/** As much of a point as tells what retention makes of it (shared/policy/catch-up.ts). */
const owedPoint = z.strictObject({
  epoch: z.int().positive(),
  seq: z.int().positive(),
  capturedAtMs: z.number(),
  consistency: z.enum(['crash', 'application']),
  suspect: z.boolean(),
})

/**
 * The deltas above `baseSeq` up to `topSeq`, which go to the target as one (the union) before the points between. They
 * stay in the buffer until those are there as well, whatever was acknowledged meanwhile.
 */
const owedRange = z.strictObject({
  /** The point the next of them stands on. */
  baseSeq: z.int().nonnegative(),
  topSeq: z.int().positive(),
  /** Ascending; never empty. */
  points: z.array(owedPoint),
})
export type OwedRange = z.infer<typeof owedRange>

export function encodeOwed(ranges: readonly OwedRange[]): string {
  return JSON.stringify(ranges)
}

export function decodeOwed(json: string): readonly OwedRange[] {
  return z.array(owedRange).parse(JSON.parse(json))
}

/** With this range in place of the one that had its top; without it, when nothing of it is owed any more. */
export function withOwed(ranges: readonly OwedRange[], range: OwedRange): readonly OwedRange[] {
  const others = ranges.filter(({ topSeq }) => topSeq !== range.topSeq)
  const all = range.points.length > 0 ? [...others, range] : others
  return all.toSorted((a, b) => a.topSeq - b.topSeq)
}

/** The same for deltas of the same disks with the same sizes. */
export function layoutOf(disks: readonly { readonly diskId: string; readonly sizeBytes: number }[]): string {
  return disks
    .map(({ diskId, sizeBytes }) => `${diskId}/${sizeBytes}`)
    .sort()
    .join(' ')
}
