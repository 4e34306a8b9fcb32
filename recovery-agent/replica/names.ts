import { join } from 'node:path'
import type { DiskId, OverlayId, VmId } from '#shared/ids.ts'

export interface LayerRef {
  readonly epoch: number
  readonly seq: number
}

/** Where everything of one replica store lies. Names are stable: other programs may rely on them. */
export interface Paths {
  readonly database: string
  readonly replicas: string
  vmFolder(vmId: VmId): string
  diskFolder(vmId: VmId, diskId: DiskId): string
  layer(vmId: VmId, diskId: DiskId, ref: LayerRef): string
  /** What the database says of the VM, once more. */
  catalogCopy(vmId: VmId): string
  overlays: string
  overlayFolder(vmId: VmId, overlayId: OverlayId): string
}

/** Zero padded, so that a listing of the folder shows the chain in its order. */
export function layerName({ epoch, seq }: LayerRef): string {
  return `${epoch}-${String(seq).padStart(12, '0')}.qcow2`
}

/** In the folder of a VM everything is the folder of a disk, whose id never begins with a dot, but its catalog. */
export function isDiskFolder(name: string): boolean {
  return !name.startsWith('.')
}

export const partSuffix = '.part'
export const journalSuffix = '.journal'
/** Leaves of a part that do not fit into memory. */
export const leavesSuffix = '.leaves'
/** A layer that is written anew. */
export const repairSuffix = '.repair'
/** On its way to its own name, or found under a name that is another one's. */
export const movedSuffix = '.moved'

export function pathsIn(dir: string): Paths {
  const replicas = join(dir, 'replicas')
  const overlays = join(dir, 'overlays')
  return {
    database: join(dir, 'replica.db'),
    replicas,
    overlays,
    vmFolder: (vmId) => join(replicas, vmId),
    diskFolder: (vmId, diskId) => join(replicas, vmId, diskId),
    layer: (vmId, diskId, ref) => join(replicas, vmId, diskId, layerName(ref)),
    catalogCopy: (vmId) => join(replicas, vmId, '.catalog'),
    overlayFolder: (vmId, overlayId) => join(overlays, vmId, overlayId),
  }
}
