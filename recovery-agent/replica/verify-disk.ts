/**
 * Reads the layers of one disk again, oldest first, group by group, and keeps the rows of damage in line with what it
 * finds: what is wrong becomes a row, what turns out right again loses its row. Between any two steps the chain may
 * change; a layer whose file was replaced meanwhile is opened anew.
 */

import { GROUP_CHILDREN } from '#shared/blocks/hash-tree.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { DiskId, VmId } from '#shared/ids.ts'
import { dataRunsOf, type OpenLayer, openStored, readRun, runBuffer } from './check-layer.ts'
import type { ReplicaContext } from './context.ts'
import type { LeafGroup } from './leaf-groups.ts'
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
    // A layer that is being merged is read as part of the next one.
    const stored = layers.find(
      ({ key, inMerge }) =>
        !inMerge && key.seq >= cursor.seq && (request.only === undefined || request.only.has(key.seq)),
    )
    if (!stored) return
    if (stored.key.seq > cursor.seq) cursor = { seq: stored.key.seq, groupIndex: 0 }
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
  readonly seenChanges: number
}

/** Answers where to go on: behind the layer, or in it when its file was replaced meanwhile. */
function* verifyLayer(
  context: ReplicaContext,
  stored: StoredLayer,
  visit: LayerVisit,
): Generator<void, Cursor> {
  const { catalog, clock } = context
  const { key } = stored
  const behind: Cursor = { seq: key.seq + 1, groupIndex: 0 }
  const damagedWhole = (what: string) => {
    reportDamage(context, stored, what)
    catalog.damage.addWhole(key, what, clock.now())
    return behind
  }
  if (!stored.isKnown || !(yield* isReadable(stored))) {
    const why = yield* learnLayer(context, stored, visit.chain)
    if (why === null) return { seq: key.seq, groupIndex: 0 }
    return isCurrent(context, stored, visit) ? damagedWhole(why) : { seq: key.seq, groupIndex: 0 }
  }
  const opened = yield* openStored(context.files, stored)
  if (opened.kind === 'damaged')
    return isCurrent(context, stored, visit) ? damagedWhole(opened.what) : { seq: key.seq, groupIndex: 0 }
  using open = opened.open
  catalog.damage.clearWhole(key)
  const buffer = runBuffer()
  for (const groupIndex of stored.groupIndexes()) {
    if (groupIndex < visit.cursor.groupIndex) continue
    const blocks = yield* verifyGroup(context, open, { groupIndex, isWanted: visit.request.isWanted, buffer })
    visit.request.onChecked({ blocks, next: { seq: key.seq, groupIndex: groupIndex + 1 } })
    // The file is another one by now: what a merge brought into it from below was not read yet.
    if (!isCurrent(context, stored, visit)) return { seq: key.seq, groupIndex: 0 }
  }
  return behind
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
  if (context.catalog.changes === visit.seenChanges) return true
  const { vmId, diskId, seq } = stored.key
  const chain = context.catalog.chain(vmId)
  const now = storedLayers(context, { vmId, diskId, chain }).find(({ key }) => key.seq === seq)
  return now?.situation === stored.situation
}

function* verifyGroup(
  context: ReplicaContext,
  open: OpenLayer,
  of: { groupIndex: number; isWanted: () => boolean; buffer: Buffer },
): Generator<void, number> {
  const { catalog, clock } = context
  const { stored } = open
  const group = stored.group(of.groupIndex)
  const known = new Set(catalog.damage.blocks(stored.key))
  let blocks = zerosOf(group)
  for (const run of dataRunsOf(open, of.groupIndex, { group, isWanted: of.isWanted })) {
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
  return blocks
}

function zerosOf(group: LeafGroup): number {
  let zeros = 0
  for (let i = 0; i < GROUP_CHILDREN; i++) if (group.state(i) === 'zero') zeros++
  return zeros
}

export function reportDamage({ log }: ReplicaContext, { key, path }: StoredLayer, what: string): void {
  log.warn('replica.damage-found', { vmId: key.vmId, diskId: key.diskId, seq: key.seq, path, what })
}
