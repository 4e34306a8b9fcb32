/**
 * One merge on its way (shared/formats/qcow2/merge.ts does the files). It is done in slices, between which everything
 * else of the store goes on, this VM's included: at every instant each point that is listed reads as it always did.
 *
 *   check     the tables of the layers that will go say what was written (merge-check.ts)
 *   mark      the members are `merging` in replica.db: from here on nobody may stand on them
 *   merge     disk by disk, the newest version of every block is written into the lowest member's file
 *   rename    which takes the name of the target's layer; the folder is synced
 *   forget    one transaction: the members' rows go, the target's say what it now is
 *   sweep     files no row names any more
 *
 * What was done lives in the files and rows alone. After a crash, or when it is abandoned, it is planned again; which
 * files count is what the target's layer stands on, by the names in the files themselves. A layer of the run that it
 * does not reach was merged before.
 *
 * While a member is `merging`, its file may already hold later versions of blocks that the members above it have.
 */
import { defined } from '#shared/assert.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { ABSENT } from '#shared/formats/qcow2/cluster-map.ts'
import { CLUSTER_BYTES } from '#shared/formats/qcow2/header.ts'
import { type LayerTables, readLayerTables, readTable } from '#shared/formats/qcow2/layer-reader.ts'
import { type MergeProgress, mergeLayers } from '#shared/formats/qcow2/merge.ts'
import type { DiskId, VmId } from '#shared/ids.ts'
import type { PointRef } from '#shared/messages/commands.ts'
import { saveChangedCopies } from '../catalog/catalog-copy.ts'
import type { ReplicaContext } from '../context.ts'
import { layerName } from '../names.ts'
import { sweep } from '../sweep.ts'
import { blockCheck, checkTables, recordUnreadable, unreadableLayer } from './merge-check.ts'
import { mergeLayerLeaves } from './merge-leaves.ts'
import { hasBacking, type MergeRun } from './merge-run.ts'

/** What one slice may take: at 30-second copies of many VMs nobody notices a pause of that length. */
export const MERGE_SLICE_MS = 25
/** And copy: a bound that does not depend on how fast the disk claims to be. */
export const MERGE_SLICE_BYTES = 8 << 20
/** And steps of which each reads or writes one table at most. */
export const MERGE_SLICE_STEPS = 256

export interface MergeSlice {
  readonly isDone: boolean
  readonly copiedBytes: number
  readonly elapsedMs: number
}

export interface DueRun {
  readonly run: MergeRun
  readonly isStillDue: () => boolean
}

export class Merging implements Disposable {
  readonly #context: ReplicaContext
  readonly #work: Generator<MergeProgress, void>
  #copiedBytes = 0

  /** `isStillDue` is asked when the members are about to be marked: until then one may be pinned or leased. */
  constructor(context: ReplicaContext, vmId: VmId, { run, isStillDue }: DueRun) {
    this.#context = context
    this.#work = mergeRun(context, vmId, { run, isStillDue })
  }

  get copiedBytes(): number {
    return this.#copiedBytes
  }

  /** Throws what went wrong; this object is then over, and another one begins again. */
  slice(): MergeSlice {
    const { clock } = this.#context
    const beganMs = clock.monotonicMs()
    let copiedBytes = 0
    let isDone = false
    for (let steps = 0; steps < MERGE_SLICE_STEPS && copiedBytes < MERGE_SLICE_BYTES; steps++) {
      const { done, value } = this.#work.next()
      isDone = done === true
      if (isDone || !value) break
      copiedBytes += value.copiedBytes
      if (clock.monotonicMs() - beganMs >= MERGE_SLICE_MS) break
    }
    this.#copiedBytes += copiedBytes
    return { isDone, copiedBytes, elapsedMs: clock.monotonicMs() - beganMs }
  }

  /** Lets go of the files; what was done harms nobody. */
  [Symbol.dispose](): void {
    this.#work.return()
  }
}

function* mergeRun(
  context: ReplicaContext,
  vmId: VmId,
  { run, isStillDue }: DueRun,
): Generator<MergeProgress, void> {
  const { catalog, crash, files, log, paths } = context
  const { members, target } = run
  if (members.every(({ state }) => state !== 'merging')) yield* checkRun(context, vmId, run)
  if (!isStillDue()) return
  catalog.transaction(() => {
    for (const { seq, state } of members) if (state !== 'merging') catalog.setState(vmId, seq, 'merging')
  })
  // Before the first byte: who rebuilds the database from the copy must know which files are in between.
  saveChangedCopies(context)
  crash('replica.prune-marked')
  const blockCounts = new Map<DiskId, number>()
  for (const diskId of new Set(members.flatMap(({ disks }) => disks.map((disk) => disk.diskId)))) {
    const blockCount = yield* mergeDisk(context, { vmId, diskId, run })
    if (blockCount !== undefined) blockCounts.set(diskId, blockCount)
    crash('replica.prune-disk-done')
  }
  catalog.transaction(() => {
    recordMerge(context, vmId, run)
    const now = catalog.chain(vmId).find(({ seq }) => seq === target.seq)
    for (const disk of now?.disks ?? []) {
      const blockCount = blockCounts.get(disk.diskId)
      if (blockCount === undefined) continue
      catalog.putChainDisk(vmId, target.seq, {
        ...disk,
        storedBytes: files.storedBytes(paths.layer(vmId, disk.diskId, target)),
        changedBytes: blockCount * CLUSTER_BYTES,
      })
    }
  })
  crash('replica.prune-committed')
  saveChangedCopies(context)
  sweep(context, vmId)
  const pruned = members.map(({ epoch, seq }) => `${epoch}/${seq}`)
  log.info('replica.points-pruned', { vmId, pruned, into: `${target.epoch}/${target.seq}` })
}

/** Inside the caller's transaction. */
function recordMerge(context: ReplicaContext, vmId: VmId, run: MergeRun): void {
  const { catalog, clock, files, paths } = context
  const fileBytes = (diskId: DiskId) => {
    // A disk that members of the run have and the target no longer.
    if (!run.target.disks.some((disk) => disk.diskId === diskId)) return 0
    const file = files.open(paths.layer(vmId, diskId, run.target), 'read')
    try {
      return file.sizeBytes()
    } finally {
      file.close()
    }
  }
  run.members.forEach((lower, i) => {
    mergeLayerLeaves(catalog, {
      vmId,
      lower,
      upper: run.members[i + 1] ?? run.target,
      lowerHasBacking: (diskId) => hasBacking(run, lower, diskId),
      fileBytes,
      nowMs: clock.now(),
    })
    catalog.removeFromChain(vmId, lower.seq)
  })
}

/** Before anything is marked: while a layer waits to be healed nothing may be in between. */
function* checkRun(context: ReplicaContext, vmId: VmId, run: MergeRun): Generator<MergeProgress, void> {
  for (const { diskId } of run.target.disks) {
    const layers = openLayers(context, { vmId, diskId, run })
    try {
      const uppers = layers.slice(0, -1)
      // Of the lowest only what the merge writes to: to read all its leaves would cost the size of the disk each time.
      const isWritten = (tableIndex: number) =>
        uppers.some(({ l2Clusters }) => (l2Clusters[tableIndex] ?? 0) > 0)
      for (const layer of layers) {
        const key = { vmId, diskId, seq: layer.seq }
        const isCompared = uppers.includes(layer) ? undefined : isWritten
        for (const _ of checkTables(context, { key, layer }, isCompared)) yield { copiedBytes: 0 }
      }
    } finally {
      for (const { file } of layers) file.close()
    }
  }
}

interface DiskMerge {
  readonly vmId: VmId
  readonly diskId: DiskId
  readonly run: MergeRun
}

/** Answers the blocks of the target's layer afterwards; undefined when the target does not have the disk. */
function* mergeDisk(context: ReplicaContext, merge: DiskMerge): Generator<MergeProgress, number | undefined> {
  const { crash, files, paths } = context
  const { vmId, diskId, run } = merge
  if (!run.target.disks.some((disk) => disk.diskId === diskId)) return undefined
  const layers = openLayers(context, merge)
  const lower = defined(layers.at(-1), 'the layer of the target')
  let blockCount: number
  try {
    if (layers.length === 1) return yield* countEntries(lower)
    const merging = mergeLayers({
      lower,
      uppers: layers.slice(0, -1),
      onCopied: blockCheck(
        context,
        layers.slice(0, -1).map(({ seq }) => ({ vmId, diskId, seq })),
      ),
      step: (step) => crash(`replica.prune-${step}`),
    })
    ;({ blockCount } = yield* merging)
  } catch (error) {
    if (error instanceof HotsiteError && error.code === 'layer-damaged')
      recordUnreadable(
        context,
        layers.map((layer) => ({ key: { vmId, diskId, seq: layer.seq }, layer })),
      )
    throw error
  } finally {
    for (const { file } of layers) file.close()
  }
  files.rename(lower.path, paths.layer(vmId, diskId, run.target))
  crash('replica.prune-renamed')
  files.syncFolder(paths.diskFolder(vmId, diskId))
  return blockCount
}

type OpenLayer = LayerTables & PointRef

/** What the target's layer stands on as far as it belongs to the run, newest first; the target's own is the first. */
function openLayers(context: ReplicaContext, { vmId, diskId, run }: DiskMerge): OpenLayer[] {
  const { files, paths } = context
  const layers: OpenLayer[] = []
  const open = ({ epoch, seq }: PointRef) => {
    const path = paths.layer(vmId, diskId, { epoch, seq })
    const file = files.open(path, 'read')
    try {
      layers.push({ ...readLayerTables(file, path), epoch, seq })
    } catch (error) {
      file.close()
      throw unreadableLayer(context, { vmId, diskId, seq }, error)
    }
  }
  try {
    open(run.target)
    for (const member of run.members.toReversed()) {
      if (layers.at(-1)?.header.backingName !== layerName(member)) continue
      open(member)
    }
    const lowest = layers.at(-1)
    if (lowest && layers.length > 1) {
      layers.pop()
      lowest.file.close()
      layers.push({ ...lowest, file: files.open(lowest.path, 'write') })
    }
    return layers
  } catch (error) {
    for (const { file } of layers) file.close()
    throw error
  }
}

/** Of a layer that an earlier life has merged already. */
function* countEntries(layer: LayerTables): Generator<MergeProgress, number> {
  let count = 0
  for (let tableIndex = 0; tableIndex < layer.l2Clusters.length; tableIndex++) {
    const table = readTable(layer, tableIndex)
    if (!table) continue
    for (const state of table) if (state !== ABSENT) count++
    yield { copiedBytes: 0 }
  }
  return count
}
