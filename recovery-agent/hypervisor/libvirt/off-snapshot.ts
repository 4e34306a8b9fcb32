/**
 * The disks of a domain that is off, each shown by a qemu-nbd of its own. It takes no lock, so that the VM can be started
 * at any moment; then the snapshot is torn, and says so.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, statSync } from 'node:fs'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { NbdClient } from '../../nbd/client.ts'
import type { Snapshot, SnapshotDisk } from '../port.ts'
import type { Domain, DomainDisk } from './domain.ts'
import { endLeftoverJob } from './leftover-job.ts'
import { dirtyExtents, NBD_TIMEOUT_MS, nbdDisk } from './nbd-disk.ts'
import type { SnapshotDeps } from './running-snapshot.ts'

/** A loaded host starts a program slowly. */
const START_TIMEOUT_MS = 20_000

export async function openOff(deps: SnapshotDeps, domain: Domain): Promise<Snapshot> {
  const { checkpoints, clock, virsh, files } = deps
  const [base] = await checkpoints.list(domain.uuid)
  const capturedAtMs = clock.now()
  const servers: ChildProcess[] = []
  const clients: NbdClient[] = []
  const before = domain.disks.map(stateOf)
  let closed: { readonly intact: boolean } | undefined
  const close = () => {
    closed ??= { intact: isStillOff() }
    for (const client of clients.splice(0)) client[Symbol.dispose]()
    for (const server of servers.splice(0)) server.kill('SIGKILL')
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
      const bitmap = base?.disks.has(disk.diskId) ? base.name : undefined
      const client = await serve(deps, { domain, disk, bitmap, servers })
      clients.push(client)
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
    : { kind: 'scan', reason: 'the VM is off, and nothing was tracked before' }
}

/** Changes with everything that is written to the file. */
function stateOf({ path }: DomainDisk): string {
  if (path === null) return ''
  const { mtimeMs, size, ino } = statSync(path)
  return `${mtimeMs} ${size} ${ino}`
}

async function serve(
  { files, clock }: SnapshotDeps,
  of: { domain: Domain; disk: DomainDisk; bitmap: string | undefined; servers: ChildProcess[] },
): Promise<NbdClient> {
  const { domain, disk, bitmap, servers } = of
  const { diskId, path, format } = disk
  if (path === null || !existsSync(path))
    throw new HotsiteError(
      'disk-missing',
      `disk ${diskId} of VM ${domain.name} is not at ${path ?? 'any path of this host'}`,
    )
  const socketPath = files.socketPath(`${domain.uuid}-${diskId}`)
  const image = `driver=${format},force-share=on,file.driver=file,file.filename=${path.replaceAll(',', ',,')}`
  const shown = bitmap === undefined ? [] : ['-B', bitmap]
  const attempt = async (options: readonly string[]) => {
    const server = spawn('qemu-nbd', ['-r', '-t', '-k', socketPath, ...options, '--image-opts', image], {
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    servers.push(server)
    let said = ''
    server.stderr.on('data', (bytes: Buffer) => {
      said = (said + bytes.toString()).slice(-2000)
    })
    const gone = once(server, 'exit').catch(() => {})
    const deadlineMs = clock.monotonicMs() + START_TIMEOUT_MS
    while (!existsSync(socketPath)) {
      const ended = server.exitCode !== null || server.pid === undefined
      if (ended || clock.monotonicMs() > deadlineMs)
        throw new HotsiteError(
          'capture-failed',
          `qemu-nbd does not show ${path}: ${said.trim() || 'it does not start'}`,
        )
      await Promise.race([clock.sleep(10), gone])
    }
    const contexts = ['base:allocation', ...(bitmap === undefined ? [] : [`qemu:dirty-bitmap:${bitmap}`])]
    return NbdClient.connect({ socketPath, exportName: '', contexts, timeoutMs: NBD_TIMEOUT_MS })
  }
  if (bitmap === undefined) return await attempt([])
  // A bitmap that QEMU could not store when it died is none.
  return await attempt(shown).catch(() => attempt([]))
}
