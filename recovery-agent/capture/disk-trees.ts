/** The trees of a VM's disks during one capture. Disks come, go and change size as ordinary events (I6). */
import type { DiskId, VmId } from '#shared/ids.ts'
import type { Rng } from '#shared/rng.ts'
import type { DeltaBuffer } from '../buffer/buffer.ts'
import type { DiskRow, DiskWalk } from '../buffer/vm-rows.ts'
import { PendingTree } from '../tree/leaf-store.ts'

export interface DiskTree {
  readonly row: DiskRow
  readonly tree: PendingTree
  /** Null: the disk is new. */
  readonly formerSizeBytes: number | null
}

/** The name of a tree that never existed before: garbage of the same name could still lie in the database. */
export function newTreeName(rng: Rng, vmId: VmId, diskId: DiskId): string {
  const unique = [rng.next(), rng.next()].map((part) => Math.floor(part * 2 ** 40).toString(36)).join('')
  return `${vmId}/${diskId}/${unique}`
}

export function openDiskTrees(
  { buffer, rng }: { readonly buffer: DeltaBuffer; readonly rng: Rng },
  vmId: VmId,
  disks: readonly { readonly diskId: DiskId; readonly sizeBytes: number }[],
): DiskTree[] {
  const former = new Map(buffer.vms.disks(vmId).map((row) => [row.diskId, row]))
  return disks.map(({ diskId, sizeBytes }) => {
    const before = former.get(diskId)
    const kept = before ?? { tree: newTreeName(rng, vmId, diskId) }
    const row: DiskRow = { ...kept, diskId, sizeBytes }
    const tree = new PendingTree(buffer.leaves, row.tree)
    if (before && before.sizeBytes > sizeBytes) tree.resize(sizeBytes)
    return { row, tree, formerSizeBytes: before?.sizeBytes ?? null }
  })
}

/** Stores the new leaves and the disks as they are now, with how far each was proved. Inside the transaction of the seal. */
export function storeDiskTrees(
  buffer: DeltaBuffer,
  vmId: VmId,
  disks: readonly { readonly entry: DiskTree; readonly walk: DiskWalk }[],
): void {
  for (const { entry } of disks) entry.tree.flush()
  buffer.vms.replaceDisks(
    vmId,
    disks.map(({ entry, walk }) => ({ ...entry.row, walk })),
  )
}
