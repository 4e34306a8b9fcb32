/** Disks of a host under libvirt, as files. */
import type { Clock } from '#shared/clock.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { parseDomain } from '#shared/libvirt/domain.ts'
import { domainUuid } from '#shared/libvirt/domain-uuid.ts'
import type { Virsh } from '#shared/libvirt/virsh.ts'
import type { HostFiles, StoppedDisk } from '../port.ts'
import { realPath } from '../real-path.ts'
import { LeftoverFiles } from './leftovers.ts'
import { type ShownImage, show } from './show-image.ts'

export function openLibvirtFiles(options: {
  readonly virsh: Virsh
  readonly scratchDir: string
  readonly clock: Clock
}): HostFiles {
  const { virsh, clock } = options
  const files = new LeftoverFiles(options.scratchDir)
  return {
    overlayFormat: 'qcow2',

    async stoppedDisks(vm) {
      const domain = parseDomain(await virsh.run(['dumpxml', domainUuid(vm)]))
      if (domain.isLive)
        throw new HotsiteError('vm-running', `VM ${domain.name} is running; its disks are in use`)
      const shown: ShownImage[] = []
      const stop = () => {
        for (const image of shown) image[Symbol.dispose]()
      }
      try {
        const disks: StoppedDisk[] = []
        for (const disk of domain.disks) {
          const image = await show({ files, clock }, { domain, disk })
          shown.push(image)
          const { socketPath, client } = image
          disks.push({ diskId: disk.diskId, sizeBytes: client.sizeBytes, path: socketPath, kind: 'nbd' })
        }
        return { disks, [Symbol.dispose]: stop }
      } catch (error) {
        stop()
        throw error
      }
    },

    async anyVmNames(paths) {
      const wanted = new Set(paths.map(realPath))
      const uuids = (await virsh.run(['list', '--all', '--uuid'])).split('\n').map((uuid) => uuid.trim())
      for (const uuid of uuids.filter(Boolean)) {
        const { disks } = parseDomain(await virsh.run(['dumpxml', uuid]))
        if (disks.some(({ path }) => path !== null && wanted.has(realPath(path)))) return true
      }
      return false
    },
  }
}
