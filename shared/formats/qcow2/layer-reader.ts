import { assert } from '#shared/assert.ts'
import { BLOCK_BYTES, blockCountOf } from '#shared/blocks/block.ts'
import type { BlockFile } from '../block-file.ts'
import { ABSENT, ClusterMap, L2_ENTRIES, ZERO } from './cluster-map.ts'
import { CLUSTER_BYTES, decodeHeader, type LayerHeader } from './header.ts'
import { decodeL2, decodeReferences, l1EntriesOf, withoutTrailingZeros } from './tables.ts'

/** A sealed layer without its map: header, and where its tables are. */
export interface LayerTables {
  readonly file: BlockFile
  readonly path: string
  readonly header: LayerHeader
  /** Cluster of each L2 table by its index; 0: none. */
  readonly l2Clusters: readonly number[]
  /** Cluster of each refcount block by its index; 0: none. */
  readonly refcountBlocks: readonly number[]
}

/** A sealed layer, read whole. */
export interface Layer extends LayerTables {
  /** Where every block is. */
  readonly map: ClusterMap
}

/** One cluster is read into it and decoded before the next: left to the collector, those of a merge are megabytes. */
const scratch = Buffer.alloc(CLUSTER_BYTES)

/** Throws `layer-damaged` for what is not a layer of ours. */
export function readLayerTables(file: BlockFile, path: string): LayerTables {
  file.read(scratch, 0)
  const header = decodeHeader(scratch, path)
  const l1 = Buffer.alloc(header.l1Entries * 8)
  file.read(l1, header.l1Offset)
  const l2Clusters = decodeReferences(l1, header.l1Entries, path)
  const isOne = header.refcountTableClusters === 1
  const refcountTable = isOne ? scratch : Buffer.alloc(header.refcountTableClusters * CLUSTER_BYTES)
  file.read(refcountTable, header.refcountTableOffset)
  const used = withoutTrailingZeros(refcountTable)
  const refcountBlocks = decodeReferences(used, used.length / 8, path)
  while (refcountBlocks.at(-1) === 0) refcountBlocks.pop()
  return { file, path, header, l2Clusters, refcountBlocks }
}

/** undefined: the layer has none there, or it lies past the end of the disk. Throws `layer-damaged`. */
export function readTable(layer: LayerTables, tableIndex: number): Int32Array | undefined {
  const l2Cluster = layer.l2Clusters[tableIndex] ?? 0
  if (l2Cluster === 0 || tableIndex >= l1EntriesOf(layer.header.sizeBytes)) return undefined
  layer.file.read(scratch, l2Cluster * CLUSTER_BYTES)
  return decodeL2(scratch, layer.path)
}

/** Throws `layer-damaged` for what is not a layer of ours. */
export function readLayer(file: BlockFile, path: string): Layer {
  const layer = readLayerTables(file, path)
  const map = new ClusterMap()
  for (let tableIndex = 0; tableIndex < layer.l2Clusters.length; tableIndex++) {
    const table = readTable(layer, tableIndex)
    if (table) map.setTable(tableIndex, table)
  }
  return { ...layer, map }
}

/** Neighbouring blocks whose bytes are neighbours in one layer. */
export interface DataRun {
  readonly layer: Layer
  readonly blockIndex: number
  readonly cluster: number
  readonly blockCount: number
}

const MAX_RUN_BLOCKS = 16

/**
 * Where the data of a chain is, ascending, in runs of at most 1 MiB; everything else is zeros. `layers` begins with
 * the newest. A layer shorter than the one above it reads as zeros past its end, as QEMU has it.
 */
export function* dataRuns(layers: readonly Layer[]): Generator<DataRun> {
  const top = layers[0]
  assert(top, 'a chain has at least one layer')
  const blockCount = blockCountOf(top.header.sizeBytes)
  const counts = layers.map((layer) => blockCountOf(layer.header.sizeBytes))
  let run: DataRun | undefined
  for (let tableIndex = 0; tableIndex < l1EntriesOf(top.header.sizeBytes); tableIndex++) {
    const tables = layers.map((layer) => layer.map.table(tableIndex))
    if (tables.every((table) => table === undefined)) continue
    const end = Math.min(blockCount, (tableIndex + 1) * L2_ENTRIES)
    for (let blockIndex = tableIndex * L2_ENTRIES; blockIndex < end; blockIndex++) {
      const at = topmost({ tables, counts, blockIndex })
      if (!at) continue
      const layer = layers[at.layerIndex]
      if (!layer) continue
      if (
        run &&
        run.layer === layer &&
        run.blockCount < MAX_RUN_BLOCKS &&
        run.blockIndex + run.blockCount === blockIndex &&
        run.cluster + run.blockCount === at.cluster
      ) {
        run = { ...run, blockCount: run.blockCount + 1 }
      } else {
        if (run) yield run
        run = { layer, blockIndex, cluster: at.cluster, blockCount: 1 }
      }
    }
  }
  if (run) yield run
}

function topmost(of: {
  tables: readonly (Int32Array | undefined)[]
  counts: readonly number[]
  blockIndex: number
}): { layerIndex: number; cluster: number } | undefined {
  for (let layerIndex = 0; layerIndex < of.tables.length; layerIndex++) {
    if (of.blockIndex >= (of.counts[layerIndex] ?? 0)) return undefined
    const state = of.tables[layerIndex]?.[of.blockIndex % L2_ENTRIES] ?? ABSENT
    if (state === ZERO) return undefined
    if (state !== ABSENT) return { layerIndex, cluster: state }
  }
  return undefined
}

/** One block of a chain, newest layer first; zeros where no layer has it. */
export function readChainBlock(layers: readonly Layer[], blockIndex: number, target: Buffer): void {
  target.fill(0, 0, BLOCK_BYTES)
  for (const { file, header, map } of layers) {
    if (blockIndex >= blockCountOf(header.sizeBytes)) return
    const state = map.get(blockIndex)
    if (state === ABSENT) continue
    if (state !== ZERO) file.read(target.subarray(0, BLOCK_BYTES), state * CLUSTER_BYTES)
    return
  }
}
