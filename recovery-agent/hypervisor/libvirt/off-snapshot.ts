/**
 * The disks of a domain that is off, each shown by a qemu-nbd of its own. It takes no lock, so that the VM can be started
 * at any moment; then the snapshot is torn, and says so.
 */
import { statSync } from 'node:fs'
import type { Domain, DomainDisk } from '#shared/libvirt/domain.ts'
import type { NbdClient } from '../../nbd/client.ts'
import type { Snapshot, SnapshotDisk } from '../port.ts'
import { endLeftoverJob } from './leftover-job.ts'
import { dirtyExtents, nbdDisk } from './nbd-disk.ts'
import type { SnapshotDeps } from './running-snapshot.ts'
import { type ShownImage, show } from './show-image.ts'

export async function openOff(deps: SnapshotDeps, domain: Domain): Promise<Snapshot> {
  const { checkpoints, clock, virsh, files } = deps
  // Of several only the newest goes on: the oldest alone would miss what was written since the next one began.
  const line = await checkpoints.list(domain.uuid)
  const base = line.length === 1 ? line[0] : undefined
  const capturedAtMs = clock.now()
  const servers: ShownImage[] = []
  const before = domain.disks.map(stateOf)
  let closed: { readonly intact: boolean } | undefined
  const close = () => {
    closed ??= { intact: isStillOff() }
    for (const server of servers.splice(0)) server[Symbol.dispose]()
    files.removeOf(domain.uuid)
    return closed
  }
  const isStillOff = () =>
    virsh.runSync(['domstate', domain.uuid]).trim() === 'shut off' &&
    domain.disks.every((disk, i) => stateOf(disk) === before[i])
  try {
    await endLeftoverJob(deps, domain.uuid)
    const disks: SnapshotDisk[] = []
    for (const disk of domain.disks) {
      const bitmap = base?.disks.has(disk.target) ? base.name : undefined
      const shown = await show(deps, { domain, disk, bitmap })
      servers.push(shown)
      const { client } = shown
      disks.push(nbdDisk(client, { diskId: disk.diskId, changes: changesOf(client, bitmap) }))
    }
    return { capturedAtMs, consistency: 'crash', disks, freezeMs: () => 0, close }
  } catch (error) {
    close()
    throw error
  }
}

function changesOf(client: NbdClient, bitmap: string | undefined): SnapshotDisk['changes'] {
  const context = `qemu:dirty-bitmap:${bitmap}`
  return bitmap !== undefined && client.has(context)
    ? { kind: 'tracked', extents: dirtyExtents(client, context) }
    : { kind: 'scan', reason: 'the VM is off, and no single bitmap says what changed' }
}

/** Changes with everything that is written to the file. */
function stateOf({ path }: DomainDisk): string {
  if (path === null) return ''
  const { mtimeMs, size, ino } = statSync(path)
  return `${mtimeMs} ${size} ${ino}`
}
