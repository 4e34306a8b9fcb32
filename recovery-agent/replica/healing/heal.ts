/**
 * What a target can heal with what it has: files get their names back, and layers whose tables, size or name are wrong
 * are written anew from their own clusters. What then is missing are single blocks, which the source may have.
 */
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { type LayerTables, readTable } from '#shared/formats/qcow2/layer-reader.ts'
import type { VmId } from '#shared/ids.ts'
import type { ReplicaContext } from '../context.ts'
import { openStored } from '../proof/check-layer.ts'
import { disksOf, type StoredLayer, storedLayers } from '../proof/stored-layers.ts'
import { BEGINNING, verifyDisk } from '../proof/verify-disk.ts'
import { rebuildLayer } from './rebuild-layer.ts'
import { restoreNames } from './restore-names.ts'

/** Answers how many layers are right again. `abandonMerge`: no merge of the VM is going on when it returns. */
export function* healLocally(
  context: ReplicaContext,
  { vmId, abandonMerge }: { readonly vmId: VmId; readonly abandonMerge: (vmId: VmId) => void },
): Generator<void, number> {
  const damaged = wholeDamaged(context, vmId)
  if (damaged.length === 0) return 0
  using _reading = context.readers.hold(vmId)
  abandonMerge(vmId)
  yield* restoreNames(context, vmId, damaged)
  for (const stored of wholeDamaged(context, vmId)) {
    if (yield* isSound(context, stored)) context.catalog.damage.clearWhole(stored.key)
    else if (stored.isKnown) yield* rebuildLayer(context, stored)
  }
  // Only their tables were looked at so far.
  for (const [diskId, layers] of Map.groupBy(damaged, ({ key }) => key.diskId))
    yield* verifyDisk(context, {
      vmId,
      diskId,
      from: BEGINNING,
      only: new Set(layers.map(({ key }) => key.seq)),
      isWanted: () => true,
      onChecked: () => {},
    })
  return Math.max(0, damaged.length - wholeDamaged(context, vmId).length)
}

function wholeDamaged(context: ReplicaContext, vmId: VmId): StoredLayer[] {
  const { catalog } = context
  const chain = catalog.chain(vmId)
  return disksOf(chain)
    .flatMap((diskId) => storedLayers(context, { vmId, diskId, chain }))
    .filter(({ key }) => catalog.damage.isWhole(key))
}

function* isSound(context: ReplicaContext, stored: StoredLayer): Generator<void, boolean> {
  if (!stored.isKnown) return false
  const opened = yield* openStored(context.files, stored)
  if (opened.kind === 'damaged') return false
  using open = opened.open
  // The tables of a merge change: they have to be readable, and were not held against anything when it was opened.
  return !stored.inMerge || open.layer.l2Clusters.every((_, tableIndex) => isTable(open.layer, tableIndex))
}

function isTable(layer: LayerTables, tableIndex: number): boolean {
  try {
    readTable(layer, tableIndex)
    return true
  } catch (error) {
    if (error instanceof HotsiteError && error.code === 'layer-damaged') return false
    throw error
  }
}
