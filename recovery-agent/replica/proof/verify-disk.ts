/**
 * Reads the layers of one disk again, oldest first, group by group, and keeps the rows of damage in line with what it
 * finds: what is wrong becomes a row, what turns out right again loses its row.
 *
 * Between any two steps the chain may change. A layer whose file was replaced meanwhile is opened anew, and one that was
 * merged into the next is read on in that, from the group that was reached: merges come far more often than a walk ends.
 * What such a merge moved below that group was held against its leaves when it was copied; it is read by the next walk.
 */

import { blockCountOf } from '#shared/blocks/block.ts'
import { GROUP_CHILDREN } from '#shared/blocks/hash-tree.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { DiskId, VmId } from '#shared/ids.ts'
import type { LayerKey } from '../catalog/layer-leaves.ts'
import type { LeafGroup } from '../catalog/leaf-groups.ts'
import type { ReplicaContext } from '../context.ts'
import { dataRunsOf, type OpenLayer, openStored, readRun, runMemory } from './check-layer.ts'
import { learnLayer } from './learn-layer.ts'
import { type StoredLayer, storedLayers } from './stored-layers.ts'

export interface Cursor {
  readonly seq: number
  readonly groupIndex: number
}

export interface VerifyDisk {
  readonly vmId: VmId
  readonly diskId: DiskId
  readonly from: Cursor
  /** Layers to look at; undefined: all. */
  readonly only?: ReadonlySet<number>
  /** Which of the blocks are read; all are looked up in the tables. */
  readonly isWanted: () => boolean
  /** Everything before `next` was looked at. */
  readonly onChecked: (checked: { readonly blocks: number; readonly next: Cursor }) => void
}

export const BEGINNING: Cursor = { seq: -1, groupIndex: 0 }

export function* verifyDisk(context: ReplicaContext, request: VerifyDisk): Generator<void, void> {
  const { catalog } = context
  const { vmId, diskId } = request
  let cursor = request.from
  for (;;) {
    const chain = catalog.chain(vmId)
    const layers = storedLayers(context, { vmId, diskId, chain })
    const stored = layers.find(
      ({ key }) => key.seq >= cursor.seq && (request.only === undefined || request.only.has(key.seq)),
    )
    if (!stored) return
    cursor = { seq: stored.key.seq, groupIndex: cursor.groupIndex }
    const seenChanges = catalog.changes
    const after = yield* verifyLayer(context, stored, { request, cursor, chain, seenChanges })
    request.onChecked({ blocks: 0, next: after })
    cursor = after
  }
}

interface LayerVisit {
  readonly request: VerifyDisk
  readonly cursor: Cursor
  readonly chain: ReturnType<ReplicaContext['catalog']['chain']>
  /** Of the catalog; the layer is as it was then. */
  seenChanges: number
}

/** Answers where to go on: behind the layer, or in it when its file was replaced meanwhile. */
function* verifyLayer(
  context: ReplicaContext,
  stored: StoredLayer,
  visit: LayerVisit,
): Generator<void, Cursor> {
  const { catalog, clock } = context
  const { key } = stored
  const { cursor } = visit
  const behind: Cursor = { seq: key.seq + 1, groupIndex: 0 }
  const isSeenIn = seenBlocks(context, stored, visit.chain)
  if (!isSeenIn) return behind
  const damagedWhole = (what: string) => {
    // In a merge its tables change: what is wrong with them is found before that, or after it.
    if (stored.inMerge) return behind
    reportDamage(context, stored, what)
    catalog.damage.addWhole(key, what, clock.now())
    return behind
  }
  if (!stored.isKnown || !(yield* isReadable(stored))) {
    if (stored.inMerge) return behind
    const why = yield* learnLayer(context, stored, visit.chain)
    if (why === null) return cursor
    return isCurrent(context, stored, visit) ? damagedWhole(why) : cursor
  }
  const opened = yield* openStored(context.files, stored)
  if (opened.kind === 'damaged') return isCurrent(context, stored, visit) ? damagedWhole(opened.what) : cursor
  using open = opened.open
  if (!isCurrent(context, stored, visit)) return cursor
  if (!stored.inMerge) catalog.damage.clearWhole(key)
  using memory = runMemory()
  const buffer = memory.bytes
  for (const groupIndex of stored.groupIndexes()) {
    if (groupIndex < cursor.groupIndex) continue
    const blocks = yield* verifyGroup(context, open, {
      groupIndex,
      isSeen: isSeenIn(groupIndex),
      isWanted: visit.request.isWanted,
      isCurrent: () => isCurrent(context, stored, visit),
      buffer,
    })
    // The file is another one by now, or about to be.
    if (blocks === null) return { seq: key.seq, groupIndex }
    visit.request.onChecked({ blocks, next: { seq: key.seq, groupIndex: groupIndex + 1 } })
  }
  return behind
}

export type SeenBlocks = (groupIndex: number) => (i: number) => boolean

/**
 * Of a group, which blocks of the layer mean anything: all of them, but in a merge only those that no layer above it in
 * the merge has; the places of the others may hold anything. undefined: that is not known.
 */
export function seenBlocks(
  { catalog }: ReplicaContext,
  stored: StoredLayer,
  chain: LayerVisit['chain'],
): SeenBlocks | undefined {
  if (!stored.inMerge) return () => () => true
  const { vmId, diskId } = stored.key
  const from = chain.indexOf(stored.member) + 1
  const target = chain.findIndex(({ state }, i) => i >= from && state !== 'merging')
  const above = chain.slice(from, target + 1).map((member) => ({
    key: { vmId, diskId, seq: member.seq },
    sizeBytes: member.disks.find((disk) => disk.diskId === diskId)?.sizeBytes ?? 0,
  }))
  const isKnown = (read: () => unknown) => {
    try {
      return read() !== undefined
    } catch {
      return false
    }
  }
  if (!above.every(({ key }) => isKnown(() => catalog.layerLeaves.facts(key)))) return undefined
  return (groupIndex) => {
    const group = (key: LayerKey) => catalog.layerLeaves.group(key, groupIndex)
    if (!above.every(({ key }) => isKnown(() => group(key)))) return () => false
    const groups = above.map(({ key }) => group(key))
    return (i) =>
      above.every(({ sizeBytes }) => groupIndex * GROUP_CHILDREN + i < blockCountOf(sizeBytes)) &&
      groups.every((each) => each.state(i) === 'absent')
  }
}

/** Rows that contradict their checksums are found when they are read, here before the file is. */
function* isReadable(stored: StoredLayer): Generator<void, boolean> {
  try {
    for (const groupIndex of stored.groupIndexes()) {
      stored.group(groupIndex)
      yield
    }
    return true
  } catch (error) {
    if (error instanceof HotsiteError && error.code === 'catalog-damaged') return false
    throw error
  }
}

function isCurrent(context: ReplicaContext, stored: StoredLayer, visit: LayerVisit): boolean {
  const { catalog } = context
  const { changes } = catalog
  if (!stored.isSameFile()) return false
  if (changes === visit.seenChanges) return true
  const { vmId, diskId, seq } = stored.key
  const chain = catalog.chain(vmId)
  const now = storedLayers(context, { vmId, diskId, chain }).find(({ key }) => key.seq === seq)
  if (now?.situation !== stored.situation) return false
  visit.seenChanges = changes
  return true
}

/** Answers the blocks looked at; null when the layer changed on the way. */
function* verifyGroup(
  context: ReplicaContext,
  open: OpenLayer,
  of: {
    readonly groupIndex: number
    readonly isSeen: (i: number) => boolean
    readonly isWanted: () => boolean
    readonly isCurrent: () => boolean
    readonly buffer: Buffer
  },
): Generator<void, number | null> {
  const { catalog, clock } = context
  const { stored } = open
  const group = stored.group(of.groupIndex)
  const known = new Set(catalog.damage.blocks(stored.key))
  let blocks = unreadOf(group, of.isSeen)
  const isWanted = (i: number) => of.isSeen(i) && of.isWanted()
  for (const run of dataRunsOf(open, of.groupIndex, { group, isWanted })) {
    if (!of.isCurrent()) return null
    for (const { blockIndex, fault } of readRun(open, run, { group, buffer: of.buffer })) {
      blocks++
      if (fault === null) {
        if (known.has(blockIndex)) catalog.damage.clearBlock(stored.key, blockIndex)
      } else if (!known.has(blockIndex)) {
        reportDamage(context, stored, `block ${blockIndex}: ${fault}`)
        catalog.damage.addBlock(stored.key, blockIndex, { what: fault, nowMs: clock.now() })
      }
    }
    yield
  }
  return of.isCurrent() ? blocks : null
}

/** Blocks of which there is nothing to read: zeros, and what a merge is about to leave behind. */
function unreadOf(group: LeafGroup, isSeen: (i: number) => boolean): number {
  let count = 0
  for (let i = 0; i < GROUP_CHILDREN; i++) {
    const state = group.state(i)
    if (state === 'zero' || (state === 'data' && !isSeen(i))) count++
  }
  return count
}

export function reportDamage({ log }: ReplicaContext, { key, path }: StoredLayer, what: string): void {
  log.warn('replica.damage-found', { vmId: key.vmId, diskId: key.diskId, seq: key.seq, path, what })
}
