import { dirname, join } from 'node:path'
import type { DiskId, VmId } from '#shared/ids.ts'
import type { ReplicaContext } from './context.ts'
import { isDiskFolder, journalSuffix, leavesSuffix, partSuffix } from './names.ts'

/**
 * Removes the files of a replica that no row of the database names: what a crash or a finished delta left. Only
 * folders of known replicas are touched; a data folder whose database was lost keeps its layers. While a layer is missing
 * nothing is removed: it may lie under another name (restore-names.ts).
 */
export function sweep(context: ReplicaContext, vmId: VmId): void {
  const { catalog, files, paths } = context
  const named = new Set<string>()
  for (const member of catalog.chain(vmId)) {
    for (const { diskId } of member.disks) named.add(paths.layer(vmId, diskId, member))
  }
  // Of a member that is being merged the file may be renamed already.
  const isMissing = catalog
    .chain(vmId)
    .some(
      (member) =>
        member.state !== 'merging' &&
        member.disks.some(({ diskId }) => !files.exists(paths.layer(vmId, diskId, member))),
    )
  if (isMissing) return
  const partials = [catalog.partial(vmId), ...catalog.backfills.list(vmId).map(({ partial }) => partial)]
  for (const partial of partials)
    for (const { diskId } of partial?.disks ?? []) {
      const layer = paths.layer(vmId, diskId, partial ?? { epoch: 0, seq: 0 })
      // The bare name too: sealed and renamed when the process died, it becomes a part again with the next attempt.
      const suffixes = ['', partSuffix, journalSuffix, leavesSuffix]
      for (const suffix of suffixes) named.add(layer + suffix)
    }
  const folder = paths.vmFolder(vmId)
  for (const diskId of files.list(folder).filter(isDiskFolder)) {
    removeUnnamed(context, paths.diskFolder(vmId, diskId as DiskId), named)
  }
}

function removeUnnamed({ files, log }: ReplicaContext, folder: string, named: ReadonlySet<string>): void {
  const names = files.list(folder)
  const unnamed = names.map((name) => join(folder, name)).filter((path) => !named.has(path))
  for (const path of unnamed) {
    log.debug('replica.leftover-removed', { path })
    files.remove(path)
  }
  if (unnamed.length === names.length) {
    files.remove(folder)
    files.syncFolder(dirname(folder))
  } else if (unnamed.length > 0) files.syncFolder(folder)
}
