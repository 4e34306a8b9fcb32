import { z } from 'zod'

const clockTime = z.string().regex(/^([01]\d|2[0-3]):[0-5]\d$/, 'a time of day, as 18:00')

/** A part of every week, on the clock of the policy's time zone. `to` at or before `from` ends on the next day. */
export const weeklyWindow = z.strictObject({
  days: z
    .array(z.enum(['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun']))
    .min(1)
    .max(7),
  from: clockTime,
  to: clockTime,
})
export type WeeklyWindow = z.infer<typeof weeklyWindow>

/** Windows of one timetable: a different rate for every few hours of a week is more than anybody maintains. */
export const MAX_THROTTLE_WINDOWS = 32

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
  /** In force instead of `throttleBytesPerSecond` at their times; the first that matches counts. */
  throttleWindows: z
    .array(weeklyWindow.extend({ bytesPerSecond: z.int().min(0) }).strict())
    .max(MAX_THROTTLE_WINDOWS)
    .default([]),
  /** IANA name; windows of the week are read on its clock. */
  timeZone: z.string().default('UTC'),
  /** When a resynchronization that nobody asked for sends: at once, in `resyncWindow`, or after a person's word (I7). */
  resync: z.enum(['now', 'window', 'ask']).default('now'),
  /** null with `window`: 18:00 to 06:00 every day. */
  resyncWindow: weeklyWindow.nullable().default(null),
  /** Every block is read again and proved on both sides within this time; 0: only when asked. */
  proofHours: z.int().min(0).max(8760).default(168),
})
export type ReplicationPolicy = z.infer<typeof replicationPolicy>
