/**
 * The disks of a running domain at one instant: a backup job in pull mode. From then on QEMU copies what the guest
 * overwrites to scratch files first, and shows the old state over NBD; the guest is never held for it.
 */
import { rmSync, statfsSync } from 'node:fs'
import type { Clock } from '#shared/clock.ts'
import { errorDocument, HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { Domain, DomainDisk } from '#shared/libvirt/domain.ts'
import type { Virsh } from '#shared/libvirt/virsh.ts'
import type { Logger } from '#shared/log.ts'
import { NbdClient } from '../../nbd/client.ts'
import { bytesText } from '../../source/words.ts'
import type { Snapshot, SnapshotDisk, SnapshotRequest } from '../port.ts'
import { type BackupDisk, backupXml, bitmapOf, checkpointXml } from './backup-xml.ts'
import { type BegunBackup, beginBackup } from './begin-backup.ts'
import { type Checkpoints, checkpointName } from './checkpoints.ts'
import { guardJob } from './job-guard.ts'
import { endLeftoverJob } from './leftover-job.ts'
import type { LeftoverFiles } from './leftovers.ts'
import { dirtyExtents, nbdDisk } from './nbd-disk.ts'

export interface SnapshotDeps {
  readonly virsh: Virsh
  readonly checkpoints: Checkpoints
  readonly files: LeftoverFiles
  readonly uri: string
  /** Below so much room for scratch files no job is begun, and one that is going on is ended. */
  readonly minFreeBytes: number
  /** The longest a guest may be frozen for an application-consistent point. */
  readonly freezeLimitMs: number
  readonly clock: Clock
  readonly log: Logger
}

export async function openRunning(
  deps: SnapshotDeps,
  domain: Domain,
  { seq, quiesce = false }: SnapshotRequest,
): Promise<Snapshot> {
  await endLeftoverJob(deps, domain.uuid)
  await refuseIfBusy(deps, domain)
  try {
    return await begin(deps, domain, { ...(await planBackup(deps, domain, seq)), quiesce })
  } catch (error) {
    if (!(error instanceof HotsiteError) || error.code !== 'tracker-broken') throw error
    await deps.checkpoints.forgetAll(domain)
    return await begin(deps, domain, { ...(await planBackup(deps, domain, seq)), quiesce })
  }
}

interface BackupPlan {
  readonly disks: readonly BackupDisk[]
  readonly checkpoint: string | undefined
  readonly scanReasons: ReadonlyMap<string, string>
}

/** Bitmaps live in qcow2 files. */
const canBeTracked = ({ format }: DomainDisk) => format === 'qcow2'

async function planBackup(
  { checkpoints, files }: SnapshotDeps,
  domain: Domain,
  seq: number | undefined,
): Promise<BackupPlan> {
  const known = await checkpoints.list(domain.uuid)
  // A snapshot of that number came to nothing: what it said goes to the base again.
  const repeated = seq === undefined ? [] : known.filter((checkpoint) => checkpoint.seq >= seq)
  for (const checkpoint of repeated.toReversed()) await checkpoints.remove(domain.uuid, checkpoint)
  const line = known.filter((checkpoint) => !repeated.includes(checkpoint))
  const [base] = line
  const scanReasons = new Map<string, string>()
  const disks = domain.disks.map((disk) => {
    const isSince = base && line.every((checkpoint) => checkpoint.disks.has(disk.target))
    if (!isSince)
      scanReasons.set(
        disk.diskId,
        canBeTracked(disk) ? 'nothing was tracked before' : `disks in ${disk.format} format have no tracker`,
      )
    return {
      diskId: disk.diskId,
      target: disk.target,
      scratchPath: files.scratchPath(domain.uuid, disk.target),
      since: isSince ? base.name : undefined,
      isTracked: seq !== undefined && canBeTracked(disk),
    }
  })
  return { disks, checkpoint: seq === undefined ? undefined : checkpointName(seq), scanReasons }
}

async function begin(
  deps: SnapshotDeps,
  domain: Domain,
  plan: BackupPlan & { readonly quiesce: boolean },
): Promise<Snapshot> {
  const { files, clock } = deps
  const { uuid, others } = domain
  const socketPath = files.socketPath(uuid)
  const xml = [backupXml({ socketPath, disks: plan.disks, others })]
  const checkpoint =
    plan.checkpoint === undefined ? undefined : checkpointXml(plan.checkpoint, plan.disks, others)
  if (checkpoint !== undefined) xml.push(checkpoint)
  refuseIfScratchIsLow(deps, domain)
  files.giveTo(domain.owner)
  const paths = files.writeRequests(uuid, xml)
  const capturedAtMs = clock.now()
  const { uri, minFreeBytes } = deps
  const guard = guardJob({ uri, uuid, socketPath, scratchDir: files.dir, minFreeBytes })
  let begun: BegunBackup
  try {
    begun = await beginBackup(deps, domain, { paths, quiesce: plan.quiesce })
  } catch (error) {
    // A job that began all the same is ended before its guard goes (I11).
    await endLeftoverJob(deps, uuid).catch((failure: unknown) => {
      deps.log.warn('libvirt.backup-not-ended', { vm: domain.name, error: failure })
    })
    guard[Symbol.dispose]()
    throw beginError(deps, domain, error)
  } finally {
    for (const path of paths) rmSync(path, { force: true })
  }
  const clients: NbdClient[] = []
  let closed: { readonly intact: boolean } | undefined
  const close = () => {
    closed ??= end(deps, domain, clients)
    guard[Symbol.dispose]()
    return closed
  }
  try {
    const disks = plan.disks.map((disk) => openDisk(disk, { plan, clients, socketPath }))
    const { freezeMs, ...how } = begun
    return { capturedAtMs, ...how, disks, freezeMs: () => freezeMs, close }
  } catch (error) {
    close()
    throw error
  }
}

function openDisk(
  { diskId, target, since }: BackupDisk,
  { plan, clients, socketPath }: { plan: BackupPlan; clients: NbdClient[]; socketPath: string },
): SnapshotDisk {
  const bitmap = `qemu:dirty-bitmap:${bitmapOf(target)}`
  const contexts = ['base:allocation', ...(since === undefined ? [] : [bitmap])]
  const client = NbdClient.connect({ socketPath, exportName: target, contexts })
  clients.push(client)
  const reason = plan.scanReasons.get(diskId) ?? 'nothing was tracked before'
  return nbdDisk(client, {
    diskId,
    changes:
      since === undefined
        ? { kind: 'scan', reason }
        : { kind: 'tracked', extents: dirtyExtents(client, bitmap) },
  })
}

/** Only a job that was still there showed one instant to the end. */
function end({ virsh, files, log }: SnapshotDeps, { uuid, name }: Domain, clients: readonly NbdClient[]) {
  for (const client of clients) client[Symbol.dispose]()
  try {
    virsh.runSync(['domjobabort', uuid])
    files.removeOf(uuid)
    return { intact: true }
  } catch (error) {
    // Its files stay: by them the next snapshot finds the job, if it is still there.
    log.warn('libvirt.backup-not-ended', { vm: name, error })
    return { intact: false }
  }
}

function refuseIfScratchIsLow({ files, minFreeBytes }: SnapshotDeps, { name }: Domain): void {
  const { bavail, bsize } = statfsSync(files.dir)
  const freeBytes = bavail * bsize
  if (freeBytes >= minFreeBytes) return
  throw new HotsiteError(
    'scratch-low',
    `VM ${name} is not captured: ${bytesText(freeBytes)} are free for scratch files in ${files.dir}, ${bytesText(minFreeBytes)} have to be`,
  )
}

/** libvirt would wait half a minute for the job of somebody else to end before it says so. */
async function refuseIfBusy({ virsh }: SnapshotDeps, { uuid, name }: Domain): Promise<void> {
  const info = await virsh.run(['domjobinfo', uuid])
  if (/^Job type:\s+None/m.test(info)) return
  const operation = /^Operation:\s+(.*\S)/m.exec(info)?.[1] ?? 'another job'
  throw new HotsiteError('snapshot-busy', `VM ${name} is busy: ${operation} of another program is going on`)
}

function beginError({ files }: SnapshotDeps, { name }: Domain, error: unknown): unknown {
  const { message } = errorDocument(error)
  if (/Permission denied/.test(message) && message.includes(files.dir))
    return new HotsiteError(
      'libvirt-failed',
      `VM ${name} is not captured: QEMU may not write to ${files.dir} (hypervisor.scratchDir); let its user write there: ${message}`,
      { cause: error },
    )
  if (/checkpoint inconsistent|missing or broken bitmap|bitmap .* (not found|doesn't exist)/i.test(message))
    return new HotsiteError('tracker-broken', `the tracker of VM ${name}: ${message}`, { cause: error })
  if (/cannot acquire state change lock|backup job|active block job|in progress/i.test(message))
    return new HotsiteError('snapshot-busy', `VM ${name} is busy with another job: ${message}`, {
      cause: error,
    })
  return error
}
