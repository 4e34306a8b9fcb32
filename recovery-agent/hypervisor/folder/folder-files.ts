/** Disks of a host that is a folder, as files. */
import { resolve } from 'node:path'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { findVm, listHosts, listVms } from '#shared/folder/layout.ts'
import { isRunning } from '#shared/folder/process.ts'
import { openProcessTable } from '#shared/folder/process-table.ts'
import { disksOf, readRun } from '#shared/folder/vm-file.ts'
import type { HostFiles } from '../port.ts'
import { realPath } from '../real-path.ts'

export function openFolderFiles({ root, host }: { readonly root: string; readonly host: string }): HostFiles {
  const table = openProcessTable()
  return {
    overlayFormat: 'raw',
    async stoppedDisks(id) {
      const vm = findVm({ root, hosts: [host], id })
      if (!vm) throw new HotsiteError('vm-unknown', `host ${host} has no VM with the id ${id}`)
      if (isRunning(readRun(vm.dir), table))
        throw new HotsiteError('vm-running', `VM ${vm.file.name} is running; its disks are in use`)
      const disks = disksOf(vm).map(({ diskId, sizeBytes, path }) => ({
        diskId,
        sizeBytes,
        path,
        kind: 'raw' as const,
      }))
      return { disks, [Symbol.dispose]() {} }
    },
    anyVmNames: async (paths) => anyVmNames(root, paths),
  }
}

/**
 * Whether any VM of the fabric, on whatever host, running or not, is defined with one of these files as a disk. Throws
 * when a definition cannot be read: it may be the one.
 */
export function anyVmNames(root: string, paths: readonly string[]): boolean {
  const wanted = new Set(paths.map(realPath))
  const onBroken = (error: unknown) => {
    throw error
  }
  return listHosts(root)
    .flatMap((host) => listVms(root, host, onBroken))
    .some(({ dir, file }) => file.disks.some((disk) => wanted.has(realPath(resolve(dir, disk.file)))))
}
