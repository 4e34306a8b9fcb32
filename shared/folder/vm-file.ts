import { readFileSync, rmSync, type Stats, statSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { stringify } from 'yaml'
import { z } from 'zod'
import { describeIssues } from '../config.ts'
import { fsyncFolder, writeFileDurably } from '../durable-file.ts'
import { HotsiteError } from '../errors/hotsite-error.ts'
import type { DiskId } from '../ids.ts'
import { type FolderVm, fencePath, runPath, vmPath } from './layout.ts'
import { type FenceFile, fenceFile, type RunFile, runFile, type VmFile } from './schema.ts'

export function writeVm(dir: string, file: VmFile): void {
  writeFileDurably(vmPath(dir), stringify(file))
}

export const exists = (path: string) => statSync(path, { throwIfNoEntry: false }) !== undefined

export const readRun = (vmDir: string) => readJson(runPath(vmDir), runFile)
export const readFence = (vmDir: string) => readJson(fencePath(vmDir), fenceFile)
export const writeRun = (vmDir: string, run: RunFile) => writeJson(runPath(vmDir), run)
export const writeFence = (vmDir: string, fence: FenceFile) => writeJson(fencePath(vmDir), fence)

/** The removal is durable when it returns: a fence that was lifted does not come back. */
export function removeDurably(path: string): void {
  rmSync(path, { force: true })
  fsyncFolder(dirname(path))
}

export interface FolderDisk {
  readonly diskId: DiskId
  readonly name: string
  readonly path: string
  readonly boot: boolean
  readonly sizeBytes: number
}

/** The disks with their sizes, in the order of vm.yaml. Throws `disk-missing`. */
export function disksOf(vm: FolderVm): FolderDisk[] {
  return vm.file.disks.map((disk) => {
    const path = resolve(vm.dir, disk.file)
    return { diskId: disk.id, name: disk.name, path, boot: disk.boot, sizeBytes: imageSizeBytes(vm, path) }
  })
}

function imageSizeBytes(vm: FolderVm, path: string): number {
  let stats: Stats
  try {
    stats = statSync(path)
  } catch (error) {
    throw new HotsiteError(
      'disk-missing',
      `disk ${path} of VM ${vm.file.name}: ${(error as Error).message}`,
      { cause: error },
    )
  }
  if (!stats.isFile() || stats.size === 0) {
    throw new HotsiteError(
      'disk-missing',
      `disk ${path} of VM ${vm.file.name} is ${stats.isFile() ? 'empty' : 'not a regular file'}`,
    )
  }
  return stats.size
}

function readJson<Schema extends z.ZodType>(path: string, schema: Schema): z.infer<Schema> | undefined {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
  const parsed = z
    .string()
    .transform((raw, context): unknown => {
      try {
        return JSON.parse(raw)
      } catch (error) {
        context.addIssue({ code: 'custom', message: (error as Error).message })
        return z.NEVER
      }
    })
    .pipe(schema)
    .safeParse(text)
  if (!parsed.success) throw new HotsiteError('config-invalid', `${path}: ${describeIssues(parsed.error)}`)
  return parsed.data
}

const writeJson = (path: string, value: unknown) => writeFileDurably(path, `${JSON.stringify(value)}\n`)
