import { join } from 'node:path'
import type { VmId } from '#shared/ids.ts'
import type { ReplicaContext } from './context.ts'
import { isDiskFolder } from './names.ts'

/** Bytes the layers of a replica take on the disk, those of a delta on its way included. */
export function diskBytesOf({ files, paths }: ReplicaContext, vmId: VmId): number {
  const folder = paths.vmFolder(vmId)
  return files
    .list(folder)
    .filter(isDiskFolder)
    .map((disk) => join(folder, disk))
    .flatMap((disk) => files.list(disk).map((name) => files.storedBytes(join(disk, name))))
    .reduce((sum, bytes) => sum + bytes, 0)
}
