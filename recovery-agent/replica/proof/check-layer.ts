/**
 * Reads one layer file again and holds it against what it has to be. First the tables (shared/formats/qcow2/inspect.ts):
 * they must be as written, and say of each block exactly what the stored leaves say. Then the data, block by block.
 */
import { GROUP_CHILDREN, leafOf } from '#shared/blocks/hash-tree.ts'
import { OwnMemory } from '#shared/blocks/own-memory.ts'
import type { BlockFile } from '#shared/formats/block-file.ts'
import { ABSENT, L2_ENTRIES, ZERO } from '#shared/formats/qcow2/cluster-map.ts'
import { CLUSTER_BYTES } from '#shared/formats/qcow2/header.ts'
import { inspectLayer } from '#shared/formats/qcow2/inspect.ts'
import type { Layer } from '#shared/formats/qcow2/layer-reader.ts'
import type { LeafGroup } from '../catalog/leaf-groups.ts'
import type { ReplicaFiles } from '../files.ts'
import type { StoredLayer } from './stored-layers.ts'

/** Clusters read at a time: 1 MiB, of at most 16 blocks. */
const RUN_CLUSTERS = 16

/** A layer whose tables are right. */
export interface OpenLayer extends Disposable {
  readonly stored: StoredLayer
  readonly layer: Layer
}

export type Opened =
  | { readonly kind: 'sound'; readonly open: OpenLayer }
  | { readonly kind: 'damaged'; readonly what: string }

/** Opens a layer and checks its tables. While it is being merged they change, and only have to be readable. */
export function* openStored(files: ReplicaFiles, stored: StoredLayer): Generator<void, Opened> {
  if (!files.exists(stored.path)) return { kind: 'damaged', what: 'the file is gone' }
  let file: BlockFile | undefined
  let keep = false
  try {
    file = files.open(stored.path, 'read')
    const { layer, faults } = yield* inspectLayer(file, stored.path, stored.expected)
    const all = stored.inMerge ? [] : [...faults]
    if (layer && all.length === 0 && !stored.inMerge) all.push(...(yield* mappingFaults(layer, stored)))
    if (!layer || all.length > 0) return { kind: 'damaged', what: (layer ? all : faults).join('; ') }
    const opened = file
    keep = true
    return {
      kind: 'sound',
      open: { stored, layer, [Symbol.dispose]: () => opened.close() },
    }
  } catch (error) {
    if (!isDiskError(error)) throw error
    return { kind: 'damaged', what: `it cannot be read: ${error.message}` }
  } finally {
    if (!keep) file?.close()
  }
}

/** What the disk itself says when it has lost a sector. */
export function isDiskError(error: unknown): error is Error {
  return error instanceof Error && 'code' in error && error.code === 'EIO'
}

/** The first block of which tables and stored leaves say different things. */
function* mappingFaults({ map }: Layer, stored: StoredLayer): Generator<void, string[]> {
  const groupsOfTable = L2_ENTRIES / GROUP_CHILDREN
  const known = new Set(stored.groupIndexes())
  const groups = new Set(known)
  for (const tableIndex of map.tableIndexes())
    for (let i = 0; i < groupsOfTable; i++) groups.add(tableIndex * groupsOfTable + i)
  for (const groupIndex of groups) {
    const group = known.has(groupIndex) ? stored.group(groupIndex) : undefined
    for (let i = 0; i < GROUP_CHILDREN; i++) {
      const blockIndex = groupIndex * GROUP_CHILDREN + i
      if (stateWord(map.get(blockIndex)) !== (group?.state(i) ?? 'absent'))
        return [`its tables say something else of block ${blockIndex} than what was written`]
    }
    yield
  }
  return []
}

function stateWord(state: number) {
  if (state === ABSENT) return 'absent'
  return state === ZERO ? 'zero' : 'data'
}

export interface BlockRun {
  readonly firstBlock: number
  readonly cluster: number
  readonly count: number
}

/** Data blocks of a group that are wanted, in runs that lie behind one another in the file. */
export function* dataRunsOf(
  { layer, stored }: OpenLayer,
  groupIndex: number,
  { group, isWanted }: { group: LeafGroup; isWanted: (i: number) => boolean },
): Generator<BlockRun, void> {
  let run: { firstBlock: number; cluster: number; count: number } | undefined
  for (let i = 0; i < GROUP_CHILDREN; i++) {
    if (group.state(i) !== 'data' || !isWanted(i)) continue
    const blockIndex = groupIndex * GROUP_CHILDREN + i
    const cluster = layer.map.get(blockIndex)
    // Only while it is being merged can the tables be behind.
    if (cluster <= 0 && stored.inMerge) continue
    const follows =
      run &&
      run.count < RUN_CLUSTERS &&
      run.firstBlock + run.count === blockIndex &&
      run.cluster + run.count === cluster
    if (run && follows) run.count++
    else {
      if (run) yield run
      run = { firstBlock: blockIndex, cluster, count: 1 }
    }
  }
  if (run) yield run
}

export interface ReadBlock {
  readonly blockIndex: number
  /** Valid until the next one. */
  readonly bytes: Buffer
  /** null: it is what it was. */
  readonly fault: string | null
}

/** Reads a run and compares each block with its leaf. */
export function* readRun(
  { layer }: OpenLayer,
  run: BlockRun,
  { group, buffer }: { readonly group: LeafGroup; readonly buffer: Buffer },
): Generator<ReadBlock, void> {
  const bytes = buffer.subarray(0, run.count * CLUSTER_BYTES)
  const unread = readAll(layer.file, bytes, run.cluster)
  for (let i = 0; i < run.count; i++) {
    const blockIndex = run.firstBlock + i
    const block = bytes.subarray(i * CLUSTER_BYTES, (i + 1) * CLUSTER_BYTES)
    const cluster = (run.cluster + i) * CLUSTER_BYTES
    const isRight =
      !unread.has(i) &&
      cluster + CLUSTER_BYTES <= layer.file.sizeBytes() &&
      leafOf(block).equals(group.leaf(blockIndex % GROUP_CHILDREN))
    const fault = isRight ? null : (unread.get(i) ?? 'another hash than when it was written')
    yield { blockIndex, bytes: block, fault }
  }
}

export function runMemory(): OwnMemory {
  return new OwnMemory(RUN_CLUSTERS * CLUSTER_BYTES)
}

/** Answers what could not be read: one lost sector must not take its neighbours with it. */
function readAll(file: BlockFile, bytes: Buffer, cluster: number): Map<number, string> {
  const unread = new Map<number, string>()
  try {
    file.read(bytes, cluster * CLUSTER_BYTES)
    return unread
  } catch (error) {
    if (!isDiskError(error)) throw error
  }
  for (let at = 0; at < bytes.length; at += CLUSTER_BYTES) {
    try {
      file.read(bytes.subarray(at, at + CLUSTER_BYTES), cluster * CLUSTER_BYTES + at)
    } catch (error) {
      if (!isDiskError(error)) throw error
      unread.set(at / CLUSTER_BYTES, `it cannot be read: ${error.message}`)
    }
  }
  return unread
}
