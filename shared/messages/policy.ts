import { z } from 'zod'

/** Site to site (DESIGN §6). Intervals in seconds and hours, as the operator writes them. */
export const replicationPolicy = z.strictObject({
  copyFrequencySeconds: z.union([z.literal(30), z.literal(300), z.literal(900)]).default(300),
  /** Additional recovery points kept behind the newest one; 0 keeps the latest only. */
  retentionPoints: z.int().min(0).max(15).default(0),
  /** The shortest time between two kept points; one an hour by default. */
  retentionIntervalSeconds: z.int().min(0).max(86_400).default(3600),
  /** 0: never. */
  appConsistentHours: z.int().min(0).max(12).default(0),
  compression: z.boolean().default(true),
  /** Upper bound of what one source host sends for this VM; 0: none. */
  throttleBytesPerSecond: z.int().min(0).default(0),
})
export type ReplicationPolicy = z.infer<typeof replicationPolicy>
