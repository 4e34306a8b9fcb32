/**
 * Reads the tables of a layer and believes none of them. Everything this program writes has one form, so whatever is
 * read is encoded again and must come out the same, bit for bit; what the tables reference must lie inside the file,
 * each cluster once, and the refcounts must be those of exactly these clusters. So a flipped bit anywhere in header,
 * L1, L2 and refcounts is a fault. What the data clusters hold is not looked at here, and a cluster nobody references
 * means nothing.
 */
import type { BlockFile } from '../block-file.ts'
import { ClusterMap } from './cluster-map.ts'
import { CLUSTER_BYTES, decodeHeader, encodeHeader, type LayerHeader } from './header.ts'
import type { Layer } from './layer-reader.ts'
import {
  ClusterUse,
  decodeL2,
  decodeReferences,
  ENTRIES_PER_CLUSTER,
  encodeL2,
  encodeReferences,
  l1EntriesOf,
  REFCOUNTS_PER_BLOCK,
} from './tables.ts'

export interface ExpectedLayer {
  readonly sizeBytes: number
  readonly backingName: string | null
  /** undefined: not known. */
  readonly fileBytes: number | undefined
}

export interface Inspection {
  /** What could be read of it; undefined when header or L1 table lead nowhere. */
  readonly layer: Layer | undefined
  /** In words for people; none: the tables are as they were written. */
  readonly faults: readonly string[]
}

/** A fault of every cluster of a large layer tells no more than the first ones. */
const MAX_FAULTS = 8

/** A disk of 128 TiB: whoever says more wants memory for nothing. */
const MAX_L1_ENTRIES = 1 << 18

/** Yields now and then, so that the caller can do something else; `read` may throw what the disk says. */
export function* inspectLayer(
  file: BlockFile,
  path: string,
  expected: ExpectedLayer,
): Generator<void, Inspection> {
  const faults: string[] = []
  const fault = (what: string) => {
    if (faults.length < MAX_FAULTS) faults.push(what)
  }
  const fileBytes = file.sizeBytes()
  if (expected.fileBytes !== undefined && fileBytes !== expected.fileBytes)
    fault(
      fileBytes < expected.fileBytes
        ? `truncated to ${fileBytes} of ${expected.fileBytes} bytes`
        : `${fileBytes} bytes long instead of ${expected.fileBytes}`,
    )
  const header = readHeader(file, path, fault)
  if (!header) return { layer: undefined, faults }
  if (header.sizeBytes !== expected.sizeBytes)
    fault(`it is of a disk of ${header.sizeBytes} bytes instead of ${expected.sizeBytes}`)
  if (header.backingName !== expected.backingName)
    fault(`it stands on ${header.backingName ?? 'nothing'} instead of ${expected.backingName ?? 'nothing'}`)
  if (!placesAreInside(header, fileBytes)) {
    fault('the header points to tables outside of the file')
    return { layer: undefined, faults }
  }
  const { layer, use } = yield* readTables(file, path, { header, fileBytes, fault })
  yield* checkRefcounts(layer, use, fault)
  return { layer, faults }
}

type Fault = (what: string) => void

function readHeader(file: BlockFile, path: string, fault: Fault): LayerHeader | undefined {
  const cluster = Buffer.alloc(CLUSTER_BYTES)
  file.read(cluster, 0)
  try {
    const header = decodeHeader(cluster, path)
    const canonical = Buffer.alloc(CLUSTER_BYTES)
    encodeHeader(header).copy(canonical)
    if (!canonical.equals(cluster)) fault('the header is not what was written')
    return header
  } catch {
    fault('the header is not that of a layer')
    return undefined
  }
}

/** Positions of whole clusters inside the file, tables of a possible length. */
function placesAreInside(header: LayerHeader, fileBytes: number): boolean {
  const { l1Offset, l1Entries, refcountTableOffset, refcountTableClusters, sizeBytes } = header
  const isPlace = (offset: number, bytes: number) =>
    offset > 0 && offset % CLUSTER_BYTES === 0 && offset + bytes <= fileBytes
  return (
    Number.isSafeInteger(sizeBytes) &&
    l1Entries >= l1EntriesOf(sizeBytes) &&
    l1Entries <= MAX_L1_ENTRIES &&
    isPlace(l1Offset, l1Entries * 8) &&
    refcountTableClusters === 1 &&
    isPlace(refcountTableOffset, refcountTableClusters * CLUSTER_BYTES)
  )
}

function* readTables(
  file: BlockFile,
  path: string,
  { header, fileBytes, fault }: { header: LayerHeader; fileBytes: number; fault: Fault },
): Generator<void, { layer: Layer; use: ClusterUse }> {
  const use = new ClusterUse(Math.ceil(fileBytes / CLUSTER_BYTES) + 1)
  const clusterCount = Math.ceil(fileBytes / CLUSTER_BYTES)
  const take = (cluster: number, what: string) => {
    if (cluster >= clusterCount) fault(`${what} lies outside of the file`)
    else if (use.has(cluster)) fault(`${what} lies where something else does`)
    else use.add(cluster)
    return cluster < clusterCount
  }
  use.add(0)
  const l1Clusters = Math.max(1, Math.ceil(header.l1Entries / ENTRIES_PER_CLUSTER))
  for (let i = 0; i < l1Clusters; i++) take(header.l1Offset / CLUSTER_BYTES + i, 'the L1 table')
  for (let i = 0; i < header.refcountTableClusters; i++)
    take(header.refcountTableOffset / CLUSTER_BYTES + i, 'the refcount table')

  const l1 = Buffer.alloc(l1Clusters * CLUSTER_BYTES)
  file.read(l1, header.l1Offset)
  const l2Clusters = references(l1, { entries: header.l1Entries, flags: 'copied', name: 'L1', path, fault })
  const map = new ClusterMap()
  const cluster = Buffer.alloc(CLUSTER_BYTES)
  for (const [tableIndex, l2Cluster] of l2Clusters.entries()) {
    if (l2Cluster === 0) continue
    if (!take(l2Cluster, `L2 table ${tableIndex}`)) continue
    file.read(cluster, l2Cluster * CLUSTER_BYTES)
    const table = readL2(cluster, path)
    if (!table) {
      fault(`L2 table ${tableIndex} is not what was written`)
      continue
    }
    if (!encodeL2(table).equals(cluster)) fault(`L2 table ${tableIndex} is not what was written`)
    map.setTable(tableIndex, table)
    yield
  }
  for (const tableIndex of map.tableIndexes()) {
    for (const state of map.table(tableIndex) ?? []) if (state > 0) take(state, 'a data cluster')
    yield
  }
  const refcountTable = Buffer.alloc(header.refcountTableClusters * CLUSTER_BYTES)
  file.read(refcountTable, header.refcountTableOffset)
  const refcountBlocks = references(refcountTable, {
    entries: refcountTable.length / 8,
    flags: 'plain',
    name: 'refcount',
    path,
    fault,
  })
  while (refcountBlocks.at(-1) === 0) refcountBlocks.pop()
  for (const block of refcountBlocks) if (block > 0) take(block, 'a refcount block')
  return { layer: { file, path, header, map, l2Clusters, refcountBlocks }, use }
}

function readL2(cluster: Buffer, path: string): Int32Array | undefined {
  try {
    return decodeL2(cluster, path)
  } catch {
    return undefined
  }
}

function references(
  bytes: Buffer,
  of: { entries: number; flags: 'copied' | 'plain'; name: string; path: string; fault: Fault },
): number[] {
  try {
    const clusters = decodeReferences(bytes, of.entries, of.path)
    const canonical = Buffer.alloc(bytes.length)
    encodeReferences(
      clusters.map((cluster) => cluster * CLUSTER_BYTES),
      of.flags,
    ).copy(canonical)
    if (!canonical.equals(bytes)) of.fault(`the ${of.name} table is not what was written`)
    return clusters
  } catch {
    of.fault(`the ${of.name} table is not what was written`)
    return []
  }
}

function* checkRefcounts({ file, refcountBlocks }: Layer, use: ClusterUse, fault: Fault): Generator<void> {
  const stored = Buffer.alloc(CLUSTER_BYTES)
  for (let i = 0; i < Math.max(refcountBlocks.length, Math.ceil(use.end / REFCOUNTS_PER_BLOCK)); i++) {
    const block = refcountBlocks[i] ?? 0
    if (block === 0) fault(`refcount block ${i} is gone`)
    else {
      file.read(stored, block * CLUSTER_BYTES)
      if (!use.refcountBlock(i).equals(stored)) fault(`refcount block ${i} is not what was written`)
    }
    yield
  }
}
