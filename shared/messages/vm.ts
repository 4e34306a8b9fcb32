import { z } from 'zod'
import { diskId, fabricVmId } from '../ids.ts'

/** Part of reports: fields of a newer program are left out, as there. */
export const diskSpec = z.object({
  diskId,
  name: z.string(),
  sizeBytes: z.int().positive(),
  boot: z.boolean().default(false),
})
export type DiskSpec = z.infer<typeof diskSpec>

export const nicSpec = z.object({
  name: z.string(),
  /** VM network by name; null: connected to nothing. */
  network: z.string().nullable(),
})
export type NicSpec = z.infer<typeof nicSpec>

/** What the fabric says of a VM: everything needed to define its replica elsewhere. */
export const vmDescription = z.object({
  fabricVmId,
  name: z.string(),
  host: z.string(),
  generation: z.int().min(1).max(2).default(1),
  operatingSystem: z.string().default(''),
  memoryBytes: z.int().nonnegative().default(0),
  cpuCount: z.int().positive().default(1),
  disks: z.array(diskSpec),
  nics: z.array(nicSpec),
  classification: z.string().nullable().default(null),
  /** Settings only the driver understands (the folder driver: the command to run). Carried to the replica unchanged. */
  driverSettings: z.record(z.string(), z.unknown()).default({}),
})
export type VmDescription = z.infer<typeof vmDescription>

/** What was seen of a VM, just now. A step is green from this, never from a call that returned (I8). */
export const vmObservation = z.object({
  exists: z.boolean(),
  power: z.enum(['off', 'running']),
  /** Age of the newest sign of life from inside; null: none seen since it started. */
  heartbeatAgeMs: z.number().nullable(),
  nics: z.array(nicSpec),
  /** True while the fabric refuses to start it because a higher epoch runs elsewhere (I5). */
  fenced: z.boolean(),
})
export type VmObservation = z.infer<typeof vmObservation>
