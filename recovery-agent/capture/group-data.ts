import { BLOCK_BYTES } from '#shared/blocks/block.ts'
import { GROUP_CHILDREN, groupCountOf } from '#shared/blocks/hash-tree.ts'
import type { SnapshotDisk } from '../hypervisor/port.ts'
import { rangesOf } from './ranges.ts'

const GROUP_SPAN_BYTES = GROUP_CHILDREN * BLOCK_BYTES

/** How many bytes may hold data, group by group: what comparing and sending them costs at most. */
export function groupDataBytes({
  allocated,
  sizeBytes,
}: Pick<SnapshotDisk, 'allocated' | 'sizeBytes'>): Uint32Array {
  const bytes = new Uint32Array(groupCountOf(sizeBytes))
  for (const { first, end } of rangesOf(allocated, sizeBytes)) {
    for (let at = first; at < end; ) {
      const group = Math.floor(at / GROUP_CHILDREN)
      const until = Math.min(end, (group + 1) * GROUP_CHILDREN)
      const room = sizeBytes - group * GROUP_SPAN_BYTES
      bytes[group] = Math.min((bytes[group] ?? 0) + (until - at) * BLOCK_BYTES, room, GROUP_SPAN_BYTES)
      at = until
    }
  }
  return bytes
}
