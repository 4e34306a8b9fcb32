import { z } from 'zod'
import { diskId } from '#shared/ids.ts'

/** The JSON column of a sealed delta. */
export const deltaHeader = z.strictObject({
  baseSeq: z.int().nonnegative(),
  capturedAtMs: z.number(),
  consistency: z.enum(['crash', 'application']),
  disks: z.array(
    z.strictObject({ diskId, sizeBytes: z.int().nonnegative(), batchCount: z.int().nonnegative() }),
  ),
  stats: z.strictObject({
    scannedBytes: z.int(),
    changedBlocks: z.int(),
    changedBytes: z.int(),
    storedBytes: z.int(),
    freezeMs: z.number(),
    captureMs: z.number(),
    storedShare: z.number().nullable().default(null),
    suspect: z.string().default(''),
  }),
})
export type DeltaHeader = z.infer<typeof deltaHeader>
