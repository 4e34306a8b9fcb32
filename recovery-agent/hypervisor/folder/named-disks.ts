import { realpathSync } from 'node:fs'
import { resolve } from 'node:path'
import { listHosts, listVms } from '#shared/folder/layout.ts'

/**
 * Whether any VM of the fabric, on whatever host, running or not, is defined with one of these files as a disk. Throws
 * when a definition cannot be read: it may be the one.
 */
export function anyVmNames(root: string, paths: readonly string[]): boolean {
  const wanted = new Set(paths.map(real))
  const onBroken = (error: unknown) => {
    throw error
  }
  return listHosts(root)
    .flatMap((host) => listVms(root, host, onBroken))
    .some(({ dir, file }) => file.disks.some((disk) => wanted.has(real(resolve(dir, disk.file)))))
}

function real(path: string): string {
  try {
    return realpathSync(path)
  } catch {
    // A file that is gone is named by its path at the most.
    return path
  }
}
