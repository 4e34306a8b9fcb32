/**
 * The hypervisor of a host that is a folder. One instant of all disks: suspend the VM and wait until it is at rest;
 * then, best first, (1) reflink the images and let it go, (2) read the images themselves while it stands still (brief)
 * or is off, (3) copy them. Downside of (2): a suspended VM waits for as long as the reader takes, so a watchdog bounds
 * it; and one that is off may be started while it is read, which tears the snapshot.
 */
import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Clock } from '#shared/clock.ts'
import { namingFullDisk } from '#shared/errors/disk-full.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { type FolderVm, findVm, listVms } from '#shared/folder/layout.ts'
import { isRunning, signalVm } from '#shared/folder/process.ts'
import { openProcessTable } from '#shared/folder/process-table.ts'
import { disksOf, readRun } from '#shared/folder/vm-file.ts'
import type { FabricVmId } from '#shared/ids.ts'
import type { Logger } from '#shared/log.ts'
import { openDataMap } from '../data-map.ts'
import type { HostHypervisor, Snapshot, SnapshotDisk, SnapshotRequest } from '../port.ts'
import { Reflinks } from './disk-copy.ts'
import { type Hold, holdVm } from './hold.ts'
import { copyDisks } from './long-snapshot.ts'
import { closeDisks, measured, type OpenDisk, openDisks, snapshotDisks } from './open-disks.ts'

/** A look at the process table and at the images costs less than a millisecond. */
const ASK_EVERY_MS = 1_000

export interface FolderHypervisorOptions {
  /** The fabric: the folder that holds fabric.yaml. */
  readonly root: string
  readonly host: string
  /** Copies for long snapshots go to `<dataDir>/snapshots`. */
  readonly dataDir: string
  readonly clock: Clock
  readonly log: Logger
  /** The longest a VM may stand still (I11). */
  readonly freezeLimitMs: number
  /** false: do as if the file system had no reflinks. */
  readonly useReflinks?: boolean
}

export function openFolderHypervisor(options: FolderHypervisorOptions): HostHypervisor {
  const { root, host, clock, log, freezeLimitMs } = options
  const snapshotsDir = join(options.dataDir, 'snapshots')
  const table = openProcessTable()
  const dataMap = openDataMap()
  const reflinks = new Reflinks()
  const held = new Set<FabricVmId>()
  /** VMs whose reader once took longer than they may stand still: reading them live would only tear again. */
  const tooBig = new Set<FabricVmId>()
  /** VMs that were started, or written to, while they were off and being read: copied the next time. */
  const restless = new Set<FabricVmId>()
  let snapshots = 0

  const vmOrThrow = (id: FabricVmId): FolderVm => {
    const vm = findVm({ root, hosts: [host], id })
    if (!vm) throw new HotsiteError('vm-unknown', `host ${host} has no VM with the id ${id}`)
    return vm
  }

  /** Two suspensions of one VM at a time would let go of each other's instant. */
  const hold = async (vm: FolderVm, disks: readonly OpenDisk[]): Promise<Hold> => {
    const { id, name } = vm.file
    if (held.has(id)) throw new HotsiteError('snapshot-busy', `VM ${name} is being captured already`)
    held.add(id)
    try {
      const taken = await holdVm({ vmDir: vm.dir, disks }, { table, clock, freezeLimitMs })
      return {
        ...taken,
        release() {
          held.delete(id)
          return taken.release()
        },
      }
    } catch (error) {
      held.delete(id)
      throw error
    }
  }

  /** undefined: the file system of the disks has no reflinks. */
  const reflinked = async (
    vm: FolderVm,
    sources: readonly OpenDisk[],
    dir: string,
  ): Promise<Snapshot | undefined> => {
    if (options.useReflinks === false || !reflinks.possible(sources)) return undefined
    const instant = await hold(vm, sources)
    let copies: OpenDisk[] | undefined
    let intact = false
    try {
      copies = reflinks.take(sources, dir)
    } finally {
      intact = instant.release().intact
    }
    if (!copies) return undefined
    const sized = measured(copies)
    return {
      capturedAtMs: instant.heldAtMs,
      consistency: 'crash',
      disks: snapshotDisks(sized, dataMap),
      freezeMs: instant.freezeMs,
      close() {
        closeDisks(sized)
        return { intact }
      },
    }
  }

  const copied = async (vm: FolderVm, sources: readonly OpenDisk[], dir: string): Promise<Snapshot> => {
    const copy = await copyDisks({
      vmName: vm.file.name,
      sources,
      dir,
      dataMap,
      hold: () => hold(vm, sources),
    })
    restless.delete(vm.file.id)
    return {
      capturedAtMs: copy.capturedAtMs,
      consistency: 'crash',
      disks: copy.disks,
      freezeMs: () => copy.freezeMs,
      close() {
        closeDisks(copy.copies)
        return { intact: true }
      },
    }
  }

  /** undefined: it would stand still for too long. */
  const live = async (
    vm: FolderVm,
    sources: readonly OpenDisk[],
    kind: SnapshotRequest['hold'],
  ): Promise<Snapshot | undefined> => {
    const { id } = vm.file
    const running = isRunning(readRun(vm.dir), table)
    if (running ? kind === 'long' || tooBig.has(id) : restless.has(id)) return undefined
    const instant = await hold(vm, sources)
    try {
      // Started or stopped in this very moment.
      if (instant.suspended !== running) {
        instant.release()
        return undefined
      }
      const disks = snapshotDisks(measured(sources), dataMap)
      return {
        capturedAtMs: instant.heldAtMs,
        consistency: 'crash',
        disks: instant.suspended ? disks : disks.map((disk) => readWhileHeld(disk, instant, clock)),
        freezeMs: instant.freezeMs,
        close() {
          if (instant.remainingMs() === 0) tooBig.add(id)
          const ended = instant.release()
          if (!ended.intact && !instant.suspended) restless.add(id)
          return ended
        },
      }
    } catch (error) {
      instant.release()
      throw error
    }
  }

  return {
    async recover() {
      // Not the folder itself: it may be a file system of its own.
      for (const name of existsSync(snapshotsDir) ? readdirSync(snapshotsDir) : [])
        rmSync(join(snapshotsDir, name), { recursive: true, force: true })
      for (const vm of listVms(root, host, (error) => log.error('vm-file-broken', { error }))) {
        signalVm(readRun(vm.dir), table, 'SIGCONT')
      }
    },

    async disks(id) {
      return disksOf(vmOrThrow(id)).map(({ diskId, name, sizeBytes }) => ({ diskId, name, sizeBytes }))
    },

    async openSnapshot({ fabricVmId, hold: kind }: SnapshotRequest) {
      const vm = vmOrThrow(fabricVmId)
      const dir = join(snapshotsDir, String(++snapshots))
      const sources = openDisks(disksOf(vm))
      const cleanUp = () => {
        closeDisks(sources)
        rmSync(dir, { recursive: true, force: true })
      }
      try {
        mkdirSync(dir, { recursive: true, mode: 0o700 })
        const snapshot =
          (await reflinked(vm, sources, dir)) ??
          (await live(vm, sources, kind)) ??
          (await copied(vm, sources, dir))
        return closeOnce(snapshot, cleanUp)
      } catch (error) {
        cleanUp()
        const what = `a copy of the disks of VM ${vm.file.name}, which its snapshot is read from`
        throw namingFullDisk(error, { what, dir: snapshotsDir })
      }
    },

    async release() {},
  }
}

/** Hours may pass until the close; whether the VM is still off is asked now and then, so that nothing is read in vain. */
function readWhileHeld(disk: SnapshotDisk, instant: Hold, clock: Clock): SnapshotDisk {
  let askedMs = clock.monotonicMs()
  return {
    ...disk,
    read(target, offsetBytes) {
      if (clock.monotonicMs() - askedMs > ASK_EVERY_MS) {
        if (!instant.holds())
          throw new HotsiteError('snapshot-torn', `disk ${disk.diskId} changed while its VM was off`)
        askedMs = clock.monotonicMs()
      }
      disk.read(target, offsetBytes)
    },
  }
}

function closeOnce(snapshot: Snapshot, cleanUp: () => void): Snapshot {
  let closed: { readonly intact: boolean } | undefined
  return {
    ...snapshot,
    close() {
      if (!closed) {
        closed = snapshot.close()
        cleanUp()
      }
      return closed
    },
  }
}
