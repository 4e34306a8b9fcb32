import { isAbsolute, relative } from 'node:path'
import { describeIssues } from '#shared/config.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { type VmFile, vmFile } from '#shared/folder/schema.ts'
import type { CommandRequest } from '#shared/messages/commands.ts'

/** The vm.yaml that a definition asks for, in the folder `dir`. Throws `disk-format-unsupported`, `request-invalid`. */
export function vmFileOf(request: CommandRequest<'vm.define'>, dir: string): VmFile {
  const { description } = request
  const foreign = request.disks.find((disk) => disk.format !== 'raw')
  if (foreign) {
    throw new HotsiteError(
      'disk-format-unsupported',
      `disk ${foreign.path} of VM ${request.name} is ${foreign.format}; folder VMs need raw images`,
    )
  }
  const parsed = vmFile.safeParse({
    id: request.fabricVmId,
    name: request.name,
    generation: description.generation,
    operatingSystem: description.operatingSystem,
    memoryBytes: description.memoryBytes,
    cpuCount: description.cpuCount,
    disks: request.disks.map((disk) => {
      const described = description.disks.find((other) => other.diskId === disk.diskId)
      return {
        id: disk.diskId,
        name: described?.name ?? disk.diskId,
        file: fileIn(dir, disk.path),
        boot: described?.boot ?? false,
      }
    }),
    nics: request.nics,
    classification: description.classification,
    command: description.driverSettings['command'],
  })
  if (!parsed.success) {
    throw new HotsiteError(
      'request-invalid',
      `VM ${request.name} cannot be defined as a folder VM: ${describeIssues(parsed.error)}`,
    )
  }
  return parsed.data
}

/** Relative where the image lies in the folder of the VM, so that such a folder can be moved. */
function fileIn(dir: string, path: string): string {
  const inside = relative(dir, path)
  return inside === '' || inside.startsWith('..') || isAbsolute(inside) ? path : inside
}

/** A folder name for a VM: readable, and safe whatever the VM is called. */
export function folderNameFor(name: string): string {
  const safe = name.replaceAll(/[^A-Za-z0-9_. -]/g, '_').slice(0, 60)
  return /^[A-Za-z0-9_]/.test(safe) ? safe : `_${safe}`
}
