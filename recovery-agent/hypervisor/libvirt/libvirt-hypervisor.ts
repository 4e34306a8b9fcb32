/**
 * The hypervisor of a host under libvirt. A running VM is read through a backup job, one that is off through qemu-nbd;
 * what changed comes from checkpoints, which are bitmaps in the qcow2 files of its disks. Disks of other formats are
 * compared block by block.
 */
import type { Clock } from '#shared/clock.ts'
import { errorDocument, HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { FabricVmId } from '#shared/ids.ts'
import { type Domain, parseDomain } from '#shared/libvirt/domain.ts'
import { domainUuid } from '#shared/libvirt/domain-uuid.ts'
import { openVirsh, type Virsh } from '#shared/libvirt/virsh.ts'
import type { Logger } from '#shared/log.ts'
import type { HostHypervisor } from '../port.ts'
import { Checkpoints } from './checkpoints.ts'
import { endLeftoverJob } from './leftover-job.ts'
import { LeftoverFiles } from './leftovers.ts'
import { openOff } from './off-snapshot.ts'
import { openRunning } from './running-snapshot.ts'

export interface LibvirtHypervisorOptions {
  readonly uri: string
  /** Sockets and scratch files. QEMU must be able to write there. */
  readonly scratchDir: string
  readonly minFreeBytes?: number
  readonly freezeLimitMs?: number
  readonly clock: Clock
  readonly log: Logger
  readonly virsh?: Virsh
}

export const VIRSH_TIMEOUT_MS = 90_000

/** More than a fast disk takes in the second between two looks. */
const SCRATCH_MIN_FREE_BYTES = 2 ** 30

/** Writing out what waits takes most of it; what Windows gives its writers is ten. */
export const FREEZE_LIMIT_MS = 5_000

export function openLibvirtHypervisor(options: LibvirtHypervisorOptions): HostHypervisor {
  const { clock, log } = options
  const virsh = options.virsh ?? openVirsh({ uri: options.uri, timeoutMs: VIRSH_TIMEOUT_MS })
  const checkpoints = new Checkpoints(virsh, log)
  const files = new LeftoverFiles(options.scratchDir)
  const { uri, minFreeBytes = SCRATCH_MIN_FREE_BYTES, freezeLimitMs = FREEZE_LIMIT_MS } = options
  const deps = { virsh, uri, minFreeBytes, freezeLimitMs, checkpoints, files, clock, log }
  const open = new Set<FabricVmId>()

  const domainOf = async (vm: FabricVmId): Promise<Domain> =>
    parseDomain(await virsh.run(['dumpxml', domainUuid(vm)]))

  return {
    async recover() {
      for (const uuid of files.uuids()) {
        try {
          await endLeftoverJob(deps, uuid)
        } catch (error) {
          if (errorDocument(error).code !== 'vm-unknown') throw error
          files.removeOf(uuid)
        }
      }
    },

    async disks(vm) {
      const { uuid, disks } = await domainOf(vm)
      return await Promise.all(
        disks.map(async ({ diskId, target }) => ({
          diskId,
          name: target,
          sizeBytes: await sizeOf(virsh, uuid, target),
        })),
      )
    },

    async openSnapshot(request) {
      const { fabricVmId: vm } = request
      if (open.has(vm)) throw new HotsiteError('snapshot-busy', `VM ${vm} is being captured already`)
      open.add(vm)
      try {
        const domain = await domainOf(vm)
        const snapshot = domain.isLive
          ? await openRunning(deps, domain, request)
          : await openOff(deps, domain)
        let isOpen = true
        return {
          ...snapshot,
          close() {
            if (isOpen) open.delete(vm)
            isOpen = false
            return snapshot.close()
          },
        }
      } catch (error) {
        open.delete(vm)
        throw error
      }
    },

    async release(vm, seq) {
      const uuid = domainUuid(vm)
      const known = await checkpoints.list(uuid)
      const base = known.findLast((checkpoint) => checkpoint.seq <= seq)
      const older = known.filter((checkpoint) => base && checkpoint.seq < base.seq)
      if (older.length === 0 || !(await domainOf(vm)).isLive) return
      for (const checkpoint of older) await checkpoints.remove(uuid, checkpoint)
    },

    async forget(vm) {
      const domain = await domainOf(vm)
      await endLeftoverJob(deps, domain.uuid)
      await checkpoints.removeAll(domain)
    },
  }
}

async function sizeOf(virsh: Virsh, uuid: string, disk: string): Promise<number> {
  const info = await virsh.run(['domblkinfo', uuid, disk])
  const capacity = /^Capacity:\s*(\d+)/m.exec(info)?.[1]
  if (capacity === undefined)
    throw new HotsiteError('libvirt-failed', `libvirt does not say how large disk ${disk} of ${uuid} is`)
  return Number(capacity)
}
