import type { BlockFile } from '../block-file.ts'
import { ABSENT, type BlockState, L2_ENTRIES } from './cluster-map.ts'
import { CLUSTER_BYTES, decodeHeader } from './header.ts'
import { decodeL2, decodeReferences } from './tables.ts'

/** Where one block is, without reading all tables of a large layer. Throws `layer-damaged`. */
export function lookUpBlock(file: BlockFile, path: string, blockIndex: number): BlockState {
  const cluster = Buffer.alloc(CLUSTER_BYTES)
  file.read(cluster, 0)
  const { l1Offset, l1Entries } = decodeHeader(cluster, path)
  const tableIndex = Math.floor(blockIndex / L2_ENTRIES)
  if (tableIndex >= l1Entries) return ABSENT
  const entry = Buffer.alloc(8)
  file.read(entry, l1Offset + tableIndex * 8)
  const [l2Cluster = 0] = decodeReferences(entry, 1, path)
  if (l2Cluster === 0) return ABSENT
  file.read(cluster, l2Cluster * CLUSTER_BYTES)
  return decodeL2(cluster, path)[blockIndex % L2_ENTRIES] ?? ABSENT
}
