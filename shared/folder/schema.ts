/** The files of a folder fabric (docs/folder-driver.md). Unknown keys are errors that name the file. */
import { z } from 'zod'
import { diskId, fabricVmId } from '../ids.ts'
import { nicSpec } from '../messages/vm.ts'

/** Names become folder names. */
const folderName = z
  .string()
  .regex(/^[^/\\\0.][^/\\\0]{0,99}$/, 'a name without "/" or "\\" that does not start with "."')

export const fabricFile = z.strictObject({
  vmmServer: z.string().min(1),
  version: z.string().default('1'),
  clouds: z.array(z.strictObject({ name: z.string().min(1), hosts: z.array(folderName) })).default([]),
  networks: z
    .array(
      z.strictObject({
        name: z.string().min(1),
        logicalNetwork: z.string().default(''),
        subnets: z.array(z.strictObject({ name: z.string(), cidr: z.string() })).default([]),
      }),
    )
    .default([]),
  classifications: z.array(z.strictObject({ name: z.string().min(1) })).default([]),
})
export type FabricFile = z.infer<typeof fabricFile>

/** What is absent is found out: capacity of the machine, every network and classification of the fabric. */
export const hostFile = z.strictObject({
  memoryBytes: z.int().positive().optional(),
  cpuCount: z.int().positive().optional(),
  networks: z.array(z.string()).optional(),
  classifications: z.array(z.string()).optional(),
})
export type HostFile = z.infer<typeof hostFile>

export const vmFile = z.strictObject({
  id: fabricVmId,
  name: z.string().min(1),
  generation: z.int().min(1).max(2).default(1),
  operatingSystem: z.string().default(''),
  memoryBytes: z.int().nonnegative().default(0),
  cpuCount: z.int().positive().default(1),
  /** A replica has none until it is failed over to. */
  disks: z
    .array(
      z.strictObject({
        id: diskId,
        name: z.string().min(1),
        /** Raw image; relative to the folder of the VM. */
        file: z.string().min(1),
        boot: z.boolean().default(false),
      }),
    )
    .refine((disks) => new Set(disks.map((disk) => disk.id)).size === disks.length, 'two disks share an id'),
  nics: z.array(nicSpec.strict()).default([]),
  classification: z.string().nullable().default(null),
  /** The program the VM "is"; its working directory is the folder of the VM. */
  command: z.array(z.string()).min(1),
})
export type VmFile = z.infer<typeof vmFile>

export const runFile = z.strictObject({
  pid: z.int().positive(),
  /** Tells the process from a later one of the same pid: ticks since boot, or seconds where there is no /proc. */
  startTicks: z.int().nonnegative(),
  bootId: z.string(),
  startedAtMs: z.number(),
})
export type RunFile = z.infer<typeof runFile>

export const fenceFile = z.strictObject({ epoch: z.int().positive(), reason: z.string() })
export type FenceFile = z.infer<typeof fenceFile>
